#include "quant/rules.h"

#include <toml++/toml.h>

#include <string>
#include <utility>
#include <vector>

#include <fmt/ranges.h>

#include "base/error.h"
#include "base/suggest.h"
#include "io/file.h"

namespace puna::quant {
namespace {

constexpr int64_t kMaxRulesBytes = 1 << 20;

constexpr std::pair<const char*, Format Rules::*> kKeys[] = {
    {"attention", &Rules::attention},
    {"shared_expert", &Rules::shared_expert},
    {"routed_experts", &Rules::routed_experts},
    {"dense_ffn", &Rules::dense_ffn},
    {"head", &Rules::head},
    {"embedding", &Rules::embedding},
    {"vision", &Rules::vision},
    {"projector", &Rules::projector},
};

Rules linears(const Format& experts, const Format& others) {
  Rules rules;
  rules.routed_experts = experts;
  rules.attention = rules.shared_expert = rules.dense_ffn = others;
  return rules;
}

std::string did_you_mean(std::string_view name, const std::vector<std::string>& known) {
  const std::string nearest = nearest_name(name, known);
  return nearest.empty() ? fmt::format("there are {}", fmt::join(known, ", "))
                         : fmt::format("did you mean '{}'?", nearest);
}

toml::table parse(std::string_view text, std::string_view where) {
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    fail(where, "line {}: {}", error.source().begin.line, error.description());
  }
}

const std::string& text_of(const toml::node& node, std::string_view key, std::string_view where) {
  if (!node.is_string()) fail(where, "line {}: '{}' is no text in quotes", node.source().begin.line, key);
  return node.as_string()->get();
}

}  // namespace

const Format& Rules::of(const arch::ParamRow& row) const {
  static const Format keep;
  const bool matrix = row.shape.size() >= 2;
  const bool weight = row.name.ends_with(".weight");
  switch (row.kind) {
    case arch::ParamKind::kAttention:
      return attention;
    case arch::ParamKind::kSharedExpert:
      return shared_expert;
    case arch::ParamKind::kRoutedExperts:
      return routed_experts;
    case arch::ParamKind::kDenseFfn:
      return dense_ffn;
    case arch::ParamKind::kHead:
      return head;
    case arch::ParamKind::kEmbedding:
      return embedding;
    case arch::ParamKind::kVision:
      return matrix && weight ? vision : keep;
    case arch::ParamKind::kProjector:
      return matrix ? projector : keep;
    case arch::ParamKind::kNorm:
    case arch::ParamKind::kRouter:
      return keep;
  }
  throw InternalError("unknown kind of parameter");
}

void Rules::check_layout(bool gguf, std::string_view where) const {
  for (const auto& [key, member] : kKeys) {
    const Format& format = this->*member;
    if (!format.quantised() || format.gguf() == gguf) continue;
    fail(where, "{} is '{}', which {}", key, format_name(format),
         gguf ? "GGUF cannot hold; choose q8_0, q4_0 or q4_k" : "is a block of GGUF; give --format gguf with it");
  }
}

Json Rules::json() const {
  Json json = Json::object();
  for (const auto& [key, member] : kKeys) json[key] = format_name(this->*member);
  return json;
}

Rules preset_rules(std::string_view name, std::string_view where) {
  const Format int4{Code::kInt4, 32}, int8{Code::kInt8}, fp8{Code::kFp8};
  for (const char* block : {"q8_0", "q4_0", "q4_k"})
    if (name == block) return linears(parse_format(name, where), parse_format(name, where));
  if (name == "int4") return linears(int4, int4);
  if (name == "int8") return linears(int8, int8);
  if (name == "fp8") return linears(fp8, fp8);
  if (name == "mixed") return linears(int4, int8);
  fail(where, "no preset '{}'; {}", name.substr(0, 100),
       did_you_mean(name, {"int4", "int8", "fp8", "mixed", "q8_0", "q4_0", "q4_k"}));
}

Rules parse_rules(std::string_view toml, std::string_view where) {
  const toml::table table = parse(toml, where);
  std::vector<std::string> known = {"preset"};
  for (const auto& [key, member] : kKeys) known.emplace_back(key);
  Rules rules;
  if (const toml::node* preset = table.get("preset")) rules = preset_rules(text_of(*preset, "preset", where), where);
  for (const auto& [key, value] : table) {
    if (key.str() == "preset") continue;
    bool found = false;
    for (const auto& [name, member] : kKeys) {
      if (key.str() != name) continue;
      found = true;
      rules.*member = parse_format(text_of(value, key.str(), where), where);
    }
    if (!found) fail(where, "no key '{}'; {}", key.str().substr(0, 100), did_you_mean(key.str(), known));
  }
  if (rules.embedding.quantised() && !rules.embedding.gguf())
    fail(where, "embedding is '{}'; readers of this layout take it only as 'keep' or 'bf16'",
         format_name(rules.embedding));
  return rules;
}

Rules read_rules(const std::string& preset_or_file) {
  if (!preset_or_file.ends_with(".toml")) return preset_rules(preset_or_file, "--to");
  return parse_rules(io::read_file(preset_or_file, kMaxRulesBytes), preset_or_file);
}

}  // namespace puna::quant
