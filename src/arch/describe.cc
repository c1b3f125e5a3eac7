#include "arch/describe.h"

#include <fmt/format.h>

#include <array>
#include <iterator>
#include <utility>

#include "arch/counts.h"
#include "arch/layer_plan.h"
#include "base/memory.h"

namespace puna::arch {
namespace {

constexpr std::string_view kFlopsFormula =
    "2 x active matmul parameters + 4 x heads x head width x positions seen, summed over layers";

constexpr std::array kContexts = {std::pair{"8K", int64_t{8} << 10}, std::pair{"128K", int64_t{128} << 10},
                                  std::pair{"1M", int64_t{1} << 20}, std::pair{"10M", int64_t{10} << 20}};

OrderedJson rope_json(const TextConfig& t) {
  OrderedJson rope = {{"theta", t.rope_theta}};
  if (t.rope_scaling) {
    rope["factor"] = t.rope_scaling->factor;
    rope["low_freq_factor"] = t.rope_scaling->low_freq_factor;
    rope["high_freq_factor"] = t.rope_scaling->high_freq_factor;
    rope["original_max_position_embeddings"] = t.rope_scaling->original_max_position_embeddings;
  }
  if (!t.rope_factors.empty()) rope["factors"] = t.rope_factors;
  return rope;
}

OrderedJson text_json(const TextConfig& t) {
  return {{"vocab_size", t.vocab_size},
          {"hidden_size", t.hidden_size},
          {"num_hidden_layers", t.num_hidden_layers},
          {"num_attention_heads", t.num_attention_heads},
          {"num_key_value_heads", t.num_key_value_heads},
          {"head_dim", t.head_dim},
          {"intermediate_size", t.intermediate_size},
          {"intermediate_size_mlp", t.intermediate_size_mlp},
          {"num_local_experts", t.num_local_experts},
          {"num_experts_per_tok", t.num_experts_per_tok},
          {"router_activation", t.router_activation == RouterActivation::kSigmoid ? "sigmoid" : "softmax"},
          {"router_score_on", t.score_on == ScoreOn::kInput ? "input" : "output"},
          {"attention_chunk_size", t.attention_chunk_size},
          {"use_qk_norm", t.use_qk_norm},
          {"attn_temperature_tuning", t.attn_temperature_tuning},
          {"floor_scale", t.floor_scale},
          {"attn_scale", t.attn_scale},
          {"rms_norm_eps", t.rms_norm_eps},
          {"rope", rope_json(t)},
          {"max_position_embeddings", t.max_position_embeddings}};
}

OrderedJson vision_json(const VisionConfig& v) {
  return {{"hidden_size", v.hidden_size},
          {"num_hidden_layers", v.num_hidden_layers},
          {"num_attention_heads", v.num_attention_heads},
          {"intermediate_size", v.intermediate_size},
          {"image_size", v.image_size},
          {"patch_size", v.patch_size},
          {"pixel_shuffle_ratio", v.pixel_shuffle_ratio},
          {"tokens_per_tile", v.tokens_per_tile()},
          {"vision_output_dim", v.vision_output_dim},
          {"rope_theta", v.rope_theta}};
}

OrderedJson tokens_json(const Llama4Config& c) {
  return {{"bos", c.bos_token_id},     {"eos", c.eos_token_ids}, {"pad", c.pad_token_id},
          {"image", c.image_token_id}, {"boi", c.boi_token_id},  {"eoi", c.eoi_token_id}};
}

OrderedJson config_json(const Llama4Config& c) {
  OrderedJson json = {{"text", text_json(c.text)}};
  if (c.vision) json["vision"] = vision_json(*c.vision);
  json["tokens"] = tokens_json(c);
  json["dtype"] = dtype_name(c.dtype);
  return json;
}

struct Run {
  int first;
  int last;
};

std::vector<Run> runs_of(const std::vector<int>& indices) {
  std::vector<Run> runs;
  for (int index : indices) {
    if (!runs.empty() && runs.back().last + 1 == index)
      runs.back().last = index;
    else
      runs.push_back({index, index});
  }
  return runs;
}

bool evenly_spaced(const std::vector<Run>& runs) {
  for (size_t i = 1; i < runs.size(); ++i)
    if (runs[i].last - runs[i].first != runs[0].last - runs[0].first ||
        runs[i].first - runs[i - 1].first != runs[1].first - runs[0].first)
      return false;
  return true;
}

// "0-2, 4-6, 9"; an even row of more than three as "3, 7, ..., 47".
std::string index_ranges(const std::vector<int>& indices) {
  const std::vector<Run> runs = runs_of(indices);
  const bool shorten = runs.size() > 3 && evenly_spaced(runs);
  std::string out;
  for (size_t i = 0; i < runs.size(); ++i) {
    if (shorten && i == 2) {
      out += ", ...";
      i = runs.size() - 1;
    }
    if (i > 0) out += ", ";
    out += runs[i].first == runs[i].last ? fmt::format("{}", runs[i].first)
                                         : fmt::format("{}-{}", runs[i].first, runs[i].last);
  }
  return out;
}

// One entry per distinct kind of layer, in order of first appearance.
OrderedJson layers_json(const TextConfig& text) {
  OrderedJson kinds = OrderedJson::array();
  std::vector<std::vector<int>> members;
  for (const LayerPlan& plan : layer_plan(text)) {
    OrderedJson kind = {{"position", plan.rope ? "rope" : "none"},
                        {"attention", plan.chunked ? "chunked" : "global"},
                        {"ffn", plan.moe ? "experts" : "dense"},
                        {"qk_norm", plan.qk_norm},
                        {"temperature", plan.temperature}};
    size_t at = 0;
    while (at < kinds.size() && kinds[at] != kind) ++at;
    if (at == kinds.size()) kinds.push_back(std::move(kind)), members.emplace_back();
    members[at].push_back(plan.index);
  }
  for (size_t i = 0; i < kinds.size(); ++i) kinds[i]["layers"] = members[i];
  return kinds;
}

OrderedJson parameters_json(const ParameterCounts& counts) {
  OrderedJson kinds;
  for (const KindCount& kind : counts.kinds)
    kinds[kind_name(kind.kind)] = {{"total", kind.total}, {"active", kind.active}};
  return {{"total", counts.total},
          {"active_per_token", counts.active},
          {"text", counts.text},
          {"vision", counts.vision},
          {"kinds", std::move(kinds)}};
}

OrderedJson weight_bytes_json(const Llama4Config& config) {
  return {{"F32", weight_bytes(config, DType::F32)},
          {"BF16", weight_bytes(config, DType::BF16)},
          {"FP8", weight_bytes(config, DType::F8E4M3)},
          {"INT4", weight_bytes_int4(config)}};
}

OrderedJson contexts_json(const Llama4Config& config) {
  OrderedJson out = OrderedJson::array();
  for (const auto& [name, tokens] : kContexts)
    out.push_back({{"name", name},
                   {"tokens", tokens},
                   {"cache_bytes", kv_cache_bytes(config.text, tokens, DType::BF16)},
                   {"flops_per_token", flops_per_token(config, tokens)},
                   {"within_max_position", tokens <= config.text.max_position_embeddings}});
  return out;
}

// 17172892 -> "17.17M"; exact below a million.
std::string short_count(double count) {
  constexpr std::array units = {std::pair{1e15, "P"}, std::pair{1e12, "T"}, std::pair{1e9, "B"}, std::pair{1e6, "M"}};
  for (const auto& [size, unit] : units)
    if (count >= size) return fmt::format("{:.2f}{}", count / size, unit);
  return fmt::format("{:.0f}", count);
}

std::string value_text(const OrderedJson& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

using Out = std::back_insert_iterator<std::string>;

void write_config(Out out, const OrderedJson& config) {
  for (const auto& [part, fields] : config.items()) {
    if (!fields.is_object()) {
      fmt::format_to(out, "  {}: {}\n", part, value_text(fields));
      continue;
    }
    fmt::format_to(out, "  {}\n", part);
    for (const auto& [key, value] : fields.items()) fmt::format_to(out, "    {:<26} {}\n", key, value_text(value));
  }
}

void write_layers(Out out, const OrderedJson& layers) {
  fmt::format_to(out, "  {:<9}{:<9}{:<9}{:<9}{:<13}layers\n", "position", "sees", "ffn", "qk-norm", "temperature");
  for (const OrderedJson& kind : layers) {
    const auto text = [&](const char* key) { return value_text(kind[key]); };
    const auto yes = [&](const char* key) { return kind[key].get<bool>() ? "yes" : "no"; };
    const auto members = kind["layers"].get<std::vector<int>>();
    fmt::format_to(out, "  {:<9}{:<9}{:<9}{:<9}{:<13}{} ({})\n", text("position"), text("attention"), text("ffn"),
                   yes("qk_norm"), yes("temperature"), index_ranges(members), members.size());
  }
}

void write_parameters(Out out, const OrderedJson& parameters) {
  fmt::format_to(out, "  {:<16}{:>20}{:>24}\n", "", "total", "active per text token");
  for (const auto& [kind, counts] : parameters["kinds"].items())
    fmt::format_to(out, "  {:<16}{:>20}{:>24}\n", kind, counts["total"].dump(), counts["active"].dump());
  fmt::format_to(out, "  {:<16}{:>20}{:>24}\n", "sum", parameters["total"].dump(),
                 parameters["active_per_token"].dump());
}

void write_contexts(Out out, const OrderedJson& contexts) {
  fmt::format_to(out, "  {:<9}{:>18}{:>18}\n", "tokens", "cache, BF16", "FLOPs per token");
  for (const OrderedJson& row : contexts)
    fmt::format_to(out, "  {:<9}{:>18}{:>18}{}\n", value_text(row["name"]),
                   format_bytes(row["cache_bytes"].get<int64_t>()), short_count(row["flops_per_token"].get<double>()),
                   row["within_max_position"].get<bool>() ? "" : "  (past max_position_embeddings)");
}

}  // namespace

OrderedJson describe_json(const Llama4Config& config, std::string_view model) {
  const ParameterCounts counts = count_parameters(config);
  return {{"model", model},
          {"config", config_json(config)},
          {"layers", layers_json(config.text)},
          {"parameters", parameters_json(counts)},
          {"active_fraction", counts.active_fraction()},
          {"weight_bytes", weight_bytes_json(config)},
          {"contexts", contexts_json(config)},
          {"flops_formula", kFlopsFormula},
          {"notes", config.notes}};
}

std::string describe_text(const Llama4Config& config, std::string_view model) {
  const OrderedJson json = describe_json(config, model);
  const OrderedJson& parameters = json["parameters"];
  std::string text;
  const Out out(text);
  fmt::format_to(out, "{}: {} parameters, {} active per text token ({:.1f}%)\n", model,
                 short_count(parameters["total"].get<double>()),
                 short_count(parameters["active_per_token"].get<double>()),
                 100 * json["active_fraction"].get<double>());
  fmt::format_to(out, "\nconfig\n");
  write_config(out, json["config"]);
  fmt::format_to(out, "\nlayers\n");
  write_layers(out, json["layers"]);
  fmt::format_to(out, "\nparameters\n");
  write_parameters(out, parameters);
  fmt::format_to(out, "\nweights in memory or on disk (FP8 and INT4: text linears and experts, the rest BF16)\n");
  for (const auto& [storage, bytes] : json["weight_bytes"].items())
    fmt::format_to(out, "  {:<9}{:>18}\n", storage, format_bytes(bytes.get<int64_t>()));
  fmt::format_to(out, "\ncontext of one sequence (FLOPs: {})\n", kFlopsFormula);
  write_contexts(out, json["contexts"]);
  if (!config.notes.empty()) fmt::format_to(out, "\nnotes\n");
  for (const std::string& note : config.notes) fmt::format_to(out, "  - {}\n", note);
  return text;
}

}  // namespace puna::arch
