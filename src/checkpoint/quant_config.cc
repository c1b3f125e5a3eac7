#include "checkpoint/quant_config.h"

#include <algorithm>

#include "base/error.h"

namespace puna::checkpoint {
namespace {

constexpr size_t kMaxPatterns = 100'000;
constexpr int64_t kMaxInt = int64_t{1} << 31;

const Json* member(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string text_of(const Json& object, const char* key, std::string_view fallback, std::string_view where) {
  const Json* value = member(object, key);
  if (!value) return std::string(fallback);
  if (!value->is_string()) fail(where, "quantization_config: '{}' is {}, expected a string", key, value->dump());
  return value->get<std::string>();
}

int64_t int_of(const Json& object, const char* key, int64_t fallback, std::string_view where) {
  const Json* value = member(object, key);
  if (!value) return fallback;
  if (!value->is_number_integer() || *value < 0 || *value > kMaxInt)
    fail(where, "quantization_config: '{}' is {}, expected a whole number", key, value->dump());
  return value->get<int64_t>();
}

bool flag_of(const Json& object, const char* key, bool fallback, std::string_view where) {
  const Json* value = member(object, key);
  if (!value) return fallback;
  if (!value->is_boolean()) fail(where, "quantization_config: '{}' is {}, expected true or false", key, value->dump());
  return value->get<bool>();
}

std::vector<std::string> texts_of(const Json& object, const char* key, std::string_view where) {
  std::vector<std::string> texts;
  const Json* value = member(object, key);
  if (!value) return texts;
  if (!value->is_array() || value->size() > kMaxPatterns)
    fail(where, "quantization_config: '{}' must be a list of strings", key);
  for (const Json& item : *value) {
    if (!item.is_string()) fail(where, "quantization_config: '{}' holds {}, expected strings", key, item.dump());
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

std::vector<ModulePattern> patterns_of(const Json& object, const char* key, std::string_view where) {
  std::vector<ModulePattern> patterns;
  for (std::string& text : texts_of(object, key, where)) patterns.emplace_back(std::move(text), where);
  return patterns;
}

Coding coding_of(const std::string& format, const std::string& type, int64_t bits, std::string_view where) {
  if (format == "pack-quantized" && type == "int")
    for (const Coding coding : {Coding::kPacked2, Coding::kPacked3, Coding::kPacked4, Coding::kPacked8})
      if (bits == packed_bits(coding)) return coding;
  if ((format == "int-quantized" || format == "naive-quantized") && type == "int" && bits == 8) return Coding::kInt8;
  if ((format == "float-quantized" || format == "naive-quantized") && type == "float" && bits == 8)
    return Coding::kFp8E4M3;
  fail(
      where,
      "quantization_config: format '{}' with {}-bit {} weights is not supported; Puna reads pack-quantized (2, 3, 4 or "
      "8-bit int), int-quantized (8-bit) and float-quantized (8-bit)",
      format, bits, type);
}

/// Sets how many rows and columns share a scale.
void read_strategy(const Json& weights, QuantScheme& scheme, std::string_view where) {
  const std::string strategy = text_of(weights, "strategy", "", where);
  const int64_t group = int_of(weights, "group_size", 0, where);
  if (strategy == "group" || (strategy.empty() && group > 0)) {
    if (group < 1) fail(where, "quantization_config: strategy 'group' needs a positive group_size, found {}", group);
    scheme.block_cols = group;
  } else if (strategy == "tensor" || strategy.empty()) {
    scheme.block_rows = 0;
  } else if (strategy == "block") {
    const Json* block = member(weights, "block_structure");
    const auto is_extent = [](const Json& n) { return n.is_number_integer() && n >= 1 && n <= kMaxInt; };
    if (!block || !block->is_array() || block->size() != 2 || !is_extent((*block)[0]) || !is_extent((*block)[1]))
      fail(where, "quantization_config: strategy 'block' needs block_structure [rows, columns], each from 1 to {}",
           kMaxInt);
    scheme.block_rows = (*block)[0].get<int64_t>();
    scheme.block_cols = (*block)[1].get<int64_t>();
  } else if (strategy != "channel") {
    fail(where, "quantization_config: strategy '{}' is not supported; Puna reads group, channel, tensor and block",
         strategy);
  }
}

std::string scheme_text(const QuantScheme& scheme) {
  std::string text = scheme.coding == Coding::kFp8E4M3 ? "FP8"
                     : scheme.packed()                 ? fmt::format("INT{}", packed_bits(scheme.coding))
                                                       : "INT8";
  if (!scheme.symmetric) text += " asymmetric";
  if (scheme.block_rows > 1) return text + fmt::format(" block {}x{}", scheme.block_rows, scheme.block_cols);
  if (scheme.block_cols > 0) return text + fmt::format(" group {}", scheme.block_cols);
  return text + (scheme.block_rows ? " channel" : " tensor");
}

}  // namespace

ModulePattern::ModulePattern(std::string text, std::string_view where) : text_(std::move(text)) {
  if (text_.starts_with("re:")) regex_.emplace(std::string_view(text_).substr(3), where);
}

bool ModulePattern::matches(std::string_view module, bool is_router) const {
  if (regex_) return regex_->matches(module);
  return text_ == module || text_ == "Linear" || (is_router && text_ == "Llama4Router");
}

QuantConfig QuantConfig::from_hf(const Json& config, std::string_view where) {
  QuantConfig result;
  const Json* json = member(config, "quantization_config");
  if (!json && member(config, "text_config")) json = member(config["text_config"], "quantization_config");
  if (!json) json = member(config, "compression_config");
  if (!json) return result;
  const std::string method = text_of(*json, "quant_method", "", where);
  if (method == "compressed-tensors")
    result.read_compressed_tensors(*json, where);
  else if (method == "fbgemm_fp8")
    result.read_fbgemm(*json, where);
  else
    fail(where, "quant_method '{}' is not supported; Puna reads compressed-tensors and fbgemm_fp8", method);
  return result;
}

void QuantConfig::read_compressed_tensors(const Json& json, std::string_view where) {
  const std::string status = text_of(json, "quantization_status", "compressed", where);
  if (status != "compressed")
    fail(where, "quantization_status is '{}', expected 'compressed'; save the model compressed first", status);
  if (const Json* sparsity = member(json, "sparsity_config");
      sparsity && !sparsity->empty() && text_of(*sparsity, "format", "dense", where) != "dense")
    fail(where, "sparsity_config format '{}' is not supported", text_of(*sparsity, "format", "", where));
  const std::string format = text_of(json, "format", "", where);
  const Json* groups = member(json, "config_groups");
  if (!groups || !groups->is_object()) fail(where, "quantization_config has no config_groups");
  for (const auto& [name, group] : groups->items()) {
    const Json* weights = member(group, "weights");
    if (!weights) continue;
    if (const std::string order = text_of(*weights, "actorder", "", where); order == "group" || order == "dynamic")
      fail(where, "actorder '{}' (weight_g_idx) is not supported; re-quantise with actorder 'static' or none", order);
    QuantScheme scheme;
    scheme.coding = coding_of(text_of(group, "format", format, where), text_of(*weights, "type", "int", where),
                              int_of(*weights, "num_bits", 8, where), where);
    scheme.symmetric = flag_of(*weights, "symmetric", true, where);
    read_strategy(*weights, scheme, where);
    if (scheme.packed() && scheme.block_rows != 1)
      fail(where, "quantization_config: pack-quantized weights need strategy 'group' or 'channel'");
    const Json* inputs = member(group, "input_activations");
    static_activations_ |= inputs && !(member(*inputs, "dynamic") && (*inputs)["dynamic"] != false);
    description_ += (description_.empty() ? "compressed-tensors " : " + ") + scheme_text(scheme);
    groups_.push_back({scheme, patterns_of(group, "targets", where)});
  }
  ignore_ = patterns_of(json, "ignore", where);
  quantised_cache_ = member(json, "kv_cache_scheme") != nullptr;
}

void QuantConfig::read_fbgemm(const Json& json, std::string_view where) {
  fbgemm_ = true;
  fbgemm_scheme_ = {Coding::kFp8E4M3, true, 1, 0};
  description_ = "fbgemm FP8";
  not_converted_ = texts_of(json, "modules_to_not_convert", where);
  not_converted_.push_back("lm_head");
}

const QuantScheme* QuantConfig::scheme_of(std::string_view module) const {
  if (fbgemm_) {
    // A listed name stands for itself and what lies below it, wherever it is in the module's path.
    const std::string path = "." + std::string(module) + ".";
    for (const auto& name : not_converted_)
      if (path.find("." + name + ".") != std::string::npos) return nullptr;
    return &fbgemm_scheme_;
  }
  const bool is_router = module.ends_with(".router");
  auto any = [&](const std::vector<ModulePattern>& patterns) {
    return std::any_of(patterns.begin(), patterns.end(), [&](const auto& p) { return p.matches(module, is_router); });
  };
  for (const Group& group : groups_)
    if (any(group.targets)) return any(ignore_) ? nullptr : &group.scheme;
  return nullptr;
}

bool QuantConfig::is_activation_scale(std::string_view tensor) const {
  if (fbgemm_) return tensor.ends_with(".input_scale_ub");
  if (static_activations_ &&
      (tensor.ends_with(".input_scale") || tensor.ends_with(".input_zero_point") || tensor.ends_with(".output_scale")))
    return true;
  return quantised_cache_ && (tensor.ends_with(".k_scale") || tensor.ends_with(".v_scale"));
}

}  // namespace puna::checkpoint
