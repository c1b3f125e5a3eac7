#include "quant/plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>

#include <fmt/ranges.h>

#include "arch/names.h"
#include "base/checked.h"
#include "base/error.h"
#include "quant/matrix.h"

namespace puna::quant {
namespace {

constexpr std::string_view kExperts = ".experts.";

std::string without_weight(const std::string& name) {
  return name.ends_with(".weight") ? name.substr(0, name.size() - 7) : name;
}

int64_t bytes_of(const io::TensorSpec& spec) {
  const auto elements = checked_numel(spec.shape);
  const auto bytes = elements ? dtype_bytes(spec.dtype, *elements) : std::nullopt;
  PUNA_CHECK(bytes, "'{}' is too large", spec.name);
  return *bytes;
}

std::vector<io::TensorSpec> stored_tensors(const std::string& module, int64_t out, int64_t in, const Format& format,
                                           DType scales) {
  const int64_t groups = format.group ? in / format.group : 1;
  std::vector<io::TensorSpec> specs;
  if (format.code == Code::kFp8) {
    specs.push_back({module + ".weight", DType::F8E4M3, {out, in}});
    specs.push_back({module + ".weight_scale", scales, {out, 1}});
    return specs;
  }
  specs.push_back({module + ".weight_packed", DType::I32, {out, words_per_row(format, in)}});
  specs.push_back({module + ".weight_scale", scales, {out, groups}});
  if (!format.symmetric)
    specs.push_back({module + ".weight_zero_point", DType::I32, {words_per_row(format, out), groups}});
  specs.push_back({module + ".weight_shape", DType::I64, {2}});
  return specs;
}

class Planner {
 public:
  Planner(const arch::Llama4Config& config, const Rules& rules, DType dense, const RareExperts& rare)
      : config_(config), rules_(rules), dense_(dense), rare_(rare) {
    plan_.rows = arch::parameter_table(config);
  }

  Plan make(int64_t max_shard_bytes) {
    plan_.experts_differ = rare_.any();
    for (size_t i = 0; i < plan_.rows.size(); ++i) add_row(i);
    split(max_shard_bytes);
    return std::move(plan_);
  }

 private:
  void add_row(size_t index) {
    const arch::ParamRow& row = plan_.rows[index];
    const Format& format = rules_.of(row);
    if (!format.quantised()) return add_kept(index, format);
    const auto forms = arch::stored_forms(config_, row, arch::NameFormat::kHuggingFaceUnfused);
    if (!format.fits(forms[0][0].shape[1])) {
      plan_.kept.push_back(arch::hf_name(config_, row));
      return add_kept(index, {});
    }
    int64_t expert = -1, first_col = 0;
    for (const arch::StoredPart& part : forms[0]) {
      if (part.expert != expert) expert = part.expert, first_col = 0;
      const bool rare = rare_.has(row.layer, part.expert);
      add_quantised(index, part, first_col, rare ? rare_.format : format);
      first_col += part.shape[0];
    }
  }

  void add_kept(size_t index, const Format& format) {
    const arch::ParamRow& row = plan_.rows[index];
    PlannedTensor tensor{.row = index, .name = arch::hf_name(config_, row), .shape = row.shape, .format = format};
    tensor.stored = {{tensor.name, format.code == Code::kBf16 ? DType::BF16 : dense_, row.shape}};
    add(std::move(tensor));
  }

  void add_quantised(size_t index, const arch::StoredPart& part, int64_t first_col, const Format& format) {
    PlannedTensor tensor{.row = index,
                         .expert = part.expert,
                         .first_col = first_col,
                         .name = without_weight(part.name),
                         .shape = part.shape,
                         .format = format};
    tensor.stored = stored_tensors(tensor.name, part.shape[0], part.shape[1], format, scale_dtype(dense_));
    add(std::move(tensor));
  }

  void add(PlannedTensor tensor) {
    for (const io::TensorSpec& spec : tensor.stored) tensor.bytes += bytes_of(spec);
    tensor.elements = *checked_numel(tensor.shape);
    plan_.bytes += tensor.bytes;
    plan_.tensors.push_back(std::move(tensor));
  }

  void split(int64_t max_shard_bytes) {
    plan_.shard_begin = {0};
    int64_t bytes = 0;
    for (size_t i = 0; i < plan_.tensors.size(); ++i) {
      const int64_t more = plan_.tensors[i].bytes;
      if (bytes > 0 && bytes + more > max_shard_bytes) plan_.shard_begin.push_back(i), bytes = 0;
      bytes += more;
    }
    plan_.shard_begin.push_back(plan_.tensors.size());
  }

  const arch::Llama4Config& config_;
  const Rules& rules_;
  DType dense_;
  const RareExperts& rare_;
  Plan plan_;
};

/// A regular expression that matches exactly the modules of the row's kind, in any layer.
std::string pattern_of(const std::string& module) {
  std::string pattern = "re:";
  bool in_number = false;
  for (size_t i = 0; i < module.size(); ++i) {
    const char c = module[i];
    const bool digit = c >= '0' && c <= '9';
    const bool number = digit && (in_number || module[i - 1] == '.');
    if (number && !in_number) pattern += "\\d+";
    in_number = number;
    if (number) continue;
    if (c == '.') pattern += '\\';
    pattern += c;
  }
  return pattern + "$";
}

/// Of the experts of a layer whose names begin with `prefix`.
std::string pattern_of(const std::string& prefix, const std::set<int64_t>& experts) {
  std::string pattern = "re:";
  for (const char c : prefix) {
    if (c == '.') pattern += '\\';
    pattern += c;
  }
  return fmt::format("{}({})\\.", pattern, fmt::join(experts, "|"));
}

void add_once(Json& list, const std::string& text) {
  for (const Json& item : list)
    if (item == text) return;
  list.push_back(text);
}

Json weights_json(const Format& format) {
  return {{"num_bits", format.code == Code::kFp8 ? 8 : format.bits()},
          {"type", format.code == Code::kFp8 ? "float" : "int"},
          {"symmetric", format.symmetric},
          {"strategy", format.group ? "group" : "channel"},
          {"group_size", format.group ? Json(format.group) : Json()},
          {"dynamic", false}};
}

const char* layout_name(const Format& format) {
  return format.code == Code::kFp8 ? "float-quantized" : "pack-quantized";
}

}  // namespace

std::string Plan::shard_name(size_t shard) const {
  if (num_shards() == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, num_shards());
}

DType scale_dtype(DType dense) { return dense == DType::F32 ? DType::F32 : DType::BF16; }

Plan make_plan(const arch::Llama4Config& config, const Rules& rules, DType dense, int64_t max_shard_bytes,
               const RareExperts& rare) {
  return Planner(config, rules, dense, rare).make(max_shard_bytes);
}

Json quantization_config(const arch::Llama4Config& config, const Plan& plan) {
  // The format of most weights is that of every "Linear": readers look there for routed experts.
  struct Group {
    Format format;
    int64_t elements = 0;
    Json patterns = Json::array();
    std::map<std::string, std::set<int64_t>> experts = {};  // by what their names begin with, where formats differ
  };
  std::vector<Group> groups;
  Json ignore = Json::array();
  for (const PlannedTensor& tensor : plan.tensors) {
    const arch::ParamRow& row = plan.rows[tensor.row];
    if (!tensor.format.quantised()) {
      if (row.kind == arch::ParamKind::kRoutedExperts) {
        const auto forms = arch::stored_forms(config, row, arch::NameFormat::kHuggingFaceUnfused);
        for (const auto& part : forms[0]) add_once(ignore, pattern_of(without_weight(part.name)));
      } else if (row.shape.size() == 2 && row.kind != arch::ParamKind::kEmbedding && row.name.ends_with(".weight")) {
        add_once(ignore, pattern_of(without_weight(tensor.name)));
      }
      continue;
    }
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.format == tensor.format; });
    if (group == groups.end()) group = groups.insert(groups.end(), Group{.format = tensor.format});
    group->elements += tensor.elements;
    if (tensor.expert >= 0 && plan.experts_differ)
      group->experts[tensor.name.substr(0, tensor.name.find(kExperts) + kExperts.size())].insert(tensor.expert);
    else
      add_once(group->patterns, pattern_of(tensor.name));
  }
  for (Group& group : groups)
    for (const auto& [prefix, experts] : group.experts) group.patterns.push_back(pattern_of(prefix, experts));
  if (groups.empty()) return nullptr;
  std::stable_sort(groups.begin(), groups.end(),
                   [](const Group& a, const Group& b) { return a.elements < b.elements; });
  groups.back().patterns = {"Linear"};
  Json config_groups = Json::object();
  bool mixed = false;
  for (size_t i = 0; i < groups.size(); ++i) {
    const Format& format = groups[i].format;
    mixed |= std::string_view(layout_name(format)) != layout_name(groups[0].format);
    config_groups[fmt::format("group_{}", i)] = {{"targets", groups[i].patterns},
                                                 {"weights", weights_json(format)},
                                                 {"input_activations", nullptr},
                                                 {"output_activations", nullptr},
                                                 {"format", layout_name(format)}};
  }
  return {{"quant_method", "compressed-tensors"},
          {"format", mixed ? "mixed-precision" : layout_name(groups[0].format)},
          {"quantization_status", "compressed"},
          {"config_groups", config_groups},
          {"ignore", ignore},
          {"kv_cache_scheme", nullptr},
          {"global_compression_ratio", nullptr}};
}

}  // namespace puna::quant
