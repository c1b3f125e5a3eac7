// adapter_config.json of PEFT's LoRA: what it says of each target, and the variants that Puna refuses.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/json.h"
#include "checkpoint/regex.h"

namespace puna::checkpoint {

class AdapterConfig {
 public:
  /// Throws Error on anything but plain LoRA (DoRA, biases, modules_to_save, PiSSA and so on).
  static AdapterConfig read(const std::filesystem::path& path);

  /// Of a module or parameter by its name in the base model: rank_pattern and alpha_pattern decide, else the defaults.
  int64_t rank(std::string_view target) const;
  /// alpha / rank, or alpha / sqrt(rank) with rslora.
  double scale(std::string_view target) const;

  /// Whether target_parameters names this parameter ("...experts.gate_up_proj").
  bool targets_parameter(std::string_view name) const;

  /// PEFT before 0.19 stored the adapters of [E, in, out] parameters the other way round than later versions.
  bool is_before_0_19() const { return before_0_19_; }

 private:
  using Pattern = std::pair<Regex, double>;
  std::vector<Pattern> rank_patterns_, alpha_patterns_;
  std::vector<std::string> target_parameters_;
  int64_t rank_ = 0;
  double alpha_ = 0;
  bool rslora_ = false;
  bool before_0_19_ = false;
};

}  // namespace puna::checkpoint
