// What config.json's quantization_config says about each linear: compressed-tensors and fbgemm_fp8.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "checkpoint/regex.h"
#include "checkpoint/stored_matrix.h"

namespace puna::checkpoint {

/// How one linear's weight [out, in] is stored.
struct QuantScheme {
  Coding coding = Coding::kPacked4;
  bool symmetric = true;
  int64_t block_rows = 1;  // rows that share a scale; 0: all
  int64_t block_cols = 0;  // columns that share a scale; 0: all
  bool packed() const { return packed_bits(coding) != 0; }
};

/// A module name, a "re:" pattern as Python's re.match takes it, or a class name.
class ModulePattern {
 public:
  ModulePattern(std::string text, std::string_view where);
  bool matches(std::string_view module, bool is_router) const;

 private:
  std::string text_;
  std::optional<Regex> regex_;  // of a "re:" pattern
};

class QuantConfig {
 public:
  /// From the whole config.json; without quantization_config nothing is quantised. Throws Error for methods, formats
  /// and settings that Puna does not read.
  static QuantConfig from_hf(const Json& config, std::string_view where);

  /// The scheme of a linear by its Hugging Face module name ("...self_attn.q_proj"); nullptr: dense.
  const QuantScheme* scheme_of(std::string_view module) const;

  /// Routed experts keep the fused layout (fbgemm_fp8); their module name is "...feed_forward.experts".
  bool experts_fused() const { return fbgemm_; }

  /// Whether this tensor only serves activation or cache quantisation, which Puna does not do.
  bool is_activation_scale(std::string_view tensor) const;

  /// "compressed-tensors INT4 group 32", "fbgemm FP8"; empty when nothing is quantised.
  const std::string& description() const { return description_; }

 private:
  struct Group {
    QuantScheme scheme;
    std::vector<ModulePattern> targets;
  };
  void read_compressed_tensors(const Json& json, std::string_view where);
  void read_fbgemm(const Json& json, std::string_view where);

  std::vector<Group> groups_;
  std::vector<ModulePattern> ignore_;
  std::vector<std::string> not_converted_;  // fbgemm's modules_to_not_convert
  bool fbgemm_ = false;
  bool static_activations_ = false;
  bool quantised_cache_ = false;
  QuantScheme fbgemm_scheme_;
  std::string description_;
};

}  // namespace puna::checkpoint
