#include "checkpoint/adapter_config.h"

#include <cmath>
#include <cstdio>

#include "base/error.h"
#include "io/file.h"

namespace puna::checkpoint {
namespace {

constexpr int64_t kMaxConfigBytes = 16 << 20;
constexpr int64_t kMaxRank = 1 << 20;
constexpr size_t kMaxPatterns = 1000;  // each is tried on every linear

/// Not null, false, or empty.
bool is_set(const OrderedJson& json, const char* key) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return false;
  if (found->is_boolean()) return found->get<bool>();
  return !((found->is_array() || found->is_object()) && found->empty());
}

double number(const OrderedJson& json, const char* key, double fallback, std::string_view where) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return fallback;
  if (!found->is_number() || !std::isfinite(found->get<double>()))
    fail(where, "'{}' is {}, expected a number", key, found->dump());
  return found->get<double>();
}

int64_t checked_rank(double value, std::string_view where) {
  if (!(value >= 1 && value <= kMaxRank && value == std::floor(value)))
    fail(where, "a rank is {}, expected a whole number from 1 to {}", value, kMaxRank);
  return static_cast<int64_t>(value);
}

void refuse_variants(const OrderedJson& json, std::string_view where) {
  if (const std::string type = json.value("peft_type", OrderedJson("LORA")).dump(); type != "\"LORA\"")
    fail(where, "peft_type is {}, Puna reads LORA adapters", type);
  if (json.contains("bias") && json["bias"] != "none")
    fail(where, "bias is {}, expected \"none\": the model's linears have no bias", json["bias"].dump());
  for (const char* key :
       {"use_dora", "lora_bias", "modules_to_save", "layer_replication", "trainable_token_indices", "use_qalora",
        "use_bdlora", "kasa_config", "velora_config", "monteclora_config", "arrow_config", "alora_invocation_tokens"})
    if (is_set(json, key))
      fail(where, "'{}' is set to {}, which is not supported: Puna reads plain LoRA", key,
           json[key].dump().substr(0, 80));
  // These change the base weights too, so A and B alone are not the adapter.
  if (const auto init = json.find("init_lora_weights"); init != json.end() && init->is_string()) {
    const auto name = init->get<std::string>();
    for (const char* method : {"pissa", "olora", "corda", "loftq", "lora_ga"})
      if (name.starts_with(method))
        fail(where,
             "init_lora_weights is '{}', which changes the base weights; save it from PEFT converted to plain LoRA",
             name);
  }
}

/// PEFT takes the first pattern that matches, in the file's order.
std::vector<std::pair<Regex, double>> patterns(const OrderedJson& json, const char* key, std::string_view where) {
  std::vector<std::pair<Regex, double>> result;
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return result;
  if (!found->is_object()) fail(where, "'{}' must be an object", key);
  if (found->size() > kMaxPatterns)
    fail(where, "'{}' has {} patterns, at most {} are read", key, found->size(), kMaxPatterns);
  for (const auto& [pattern, value] : found->items()) {
    if (!value.is_number()) fail(where, "'{}' of '{}' is {}, expected a number", key, pattern, value.dump());
    result.emplace_back(Regex(fmt::format("(.*\\.)?({})$", pattern), where), value.get<double>());
  }
  return result;
}

bool version_before(const OrderedJson& json, int major, int minor) {
  const auto found = json.find("peft_version");
  int a = 0, b = 0;
  if (found == json.end() || !found->is_string()) return true;  // the field is as old as 0.18
  if (std::sscanf(found->get<std::string>().c_str(), "%d.%d", &a, &b) != 2) return false;
  return std::pair(a, b) < std::pair(major, minor);
}

}  // namespace

AdapterConfig AdapterConfig::read(const std::filesystem::path& path) {
  const std::string where = path.string();
  const std::string text = io::read_file(path, kMaxConfigBytes);
  const OrderedJson json = parse_ordered_json(text, where);
  if (!json.is_object()) fail(where, "is no JSON object");
  refuse_variants(json, where);
  AdapterConfig config;
  config.rank_ = checked_rank(number(json, "r", 8, where), where);
  config.alpha_ = number(json, "lora_alpha", 8, where);
  config.rslora_ = is_set(json, "use_rslora");
  config.rank_patterns_ = patterns(json, "rank_pattern", where);
  for (const auto& [regex, rank] : config.rank_patterns_) checked_rank(rank, where);
  config.alpha_patterns_ = patterns(json, "alpha_pattern", where);
  if (is_set(json, "target_parameters")) {
    const OrderedJson& names = json["target_parameters"];
    if (!names.is_array() || names.size() > kMaxPatterns)
      fail(where, "target_parameters has {} names, expected a list of at most {}", names.size(), kMaxPatterns);
    for (const OrderedJson& name : names) {
      if (!name.is_string()) fail(where, "target_parameters holds {}, expected names", name.dump());
      config.target_parameters_.push_back(name.get<std::string>());
    }
  }
  config.before_0_19_ = version_before(json, 0, 19);
  return config;
}

int64_t AdapterConfig::rank(std::string_view target) const {
  for (const auto& [regex, rank] : rank_patterns_)
    if (regex.matches(target)) return static_cast<int64_t>(rank);
  return rank_;
}

double AdapterConfig::scale(std::string_view target) const {
  double alpha = alpha_;
  for (const auto& [regex, value] : alpha_patterns_) {
    if (!regex.matches(target)) continue;
    alpha = value;
    break;
  }
  const auto r = static_cast<double>(rank(target));
  return alpha / (rslora_ ? std::sqrt(r) : r);
}

bool AdapterConfig::targets_parameter(std::string_view name) const {
  for (const auto& target : target_parameters_)
    if (name == target || name.ends_with("." + target)) return true;
  return false;
}

}  // namespace puna::checkpoint
