#include "quant/rare.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include <fmt/ranges.h>

#include "arch/parameters.h"
#include "base/error.h"
#include "experts/profile.h"

namespace puna::quant {
namespace {

constexpr const char* kFlag = "--rare-experts";
constexpr size_t kMostNamed = 8;

void check_format(const Format& format, const Format& others) {
  const std::string name = format_name(format), rules = format_name(others);
  if (others.bits() == 0)
    fail(kFlag, "routed experts are '{}'; with --to int4 some of them can have fewer bits", rules);
  if (format.bits() == 0 || format.bits() >= others.bits())
    fail(kFlag, "'{}' has no fewer bits than '{}' of the routed experts; choose a format of int2 or int3", name, rules);
  if (format.group != others.group)
    fail(kFlag, "'{}' and the routed experts' '{}' differ in their groups; all experts of a layer have the same", name,
         rules);
}

/// Layer and number of experts, in the order of the model.
std::vector<std::pair<int64_t, size_t>> layers_of(const arch::Llama4Config& config, const Format& format) {
  std::vector<std::pair<int64_t, size_t>> layers;
  for (const arch::ParamRow& row : arch::parameter_table(config)) {
    if (row.kind != arch::ParamKind::kRoutedExperts) continue;
    if (!format.fits(row.shape[1])) fail(kFlag, "{} columns are no whole groups of {}", row.shape[1], format.group);
    if (layers.empty() || layers.back().first != row.layer)
      layers.emplace_back(row.layer, static_cast<size_t>(row.shape[0]));
  }
  return layers;
}

}  // namespace

bool RareExperts::has(int64_t layer, int64_t expert) const {
  const auto found = experts.find({layer, expert});
  return found != experts.end() && found->second.error <= max_error;
}

Json RareExperts::json() const {
  Json list = Json::array();
  for (const auto& [where, expert] : experts)
    list.push_back({{"layer", where.first},
                    {"expert", where.second},
                    {"rows", expert.rows},
                    {"error", expert.error},
                    {"format", format_name(has(where.first, where.second) ? format : others)}});
  return {{"format", format_name(format)},
          {"max_error", max_error},
          {"profile_rows", profile_rows},
          {"experts", std::move(list)}};
}

std::string RareExperts::text() const {
  int64_t rows = 0;
  std::vector<std::string> kept;
  for (const auto& [where, expert] : experts) {
    if (has(where.first, where.second))
      rows += expert.rows;
    else
      kept.push_back(fmt::format("layer {} expert {} ({:.3f})", where.first, where.second, expert.error));
  }
  const double share = profile_rows > 0 ? static_cast<double>(rows) / static_cast<double>(profile_rows) : 0;
  std::string out = fmt::format("rare experts: {} of {} are {}, to which {:.2f}% of the profile's rows went",
                                experts.size() - kept.size(), experts.size(), format_name(format), 100 * share);
  if (kept.empty()) return out + "\n";
  out += fmt::format("; {} stay {}, with errors above {:.3f}: ", kept.size(), format_name(others), max_error);
  const size_t named = std::min(kept.size(), kMostNamed);
  out += fmt::format("{}", fmt::join(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(named), ", "));
  if (named < kept.size()) out += fmt::format(" and {} more, which the report lists", kept.size() - named);
  return out + "\n";
}

RareExperts choose_rare(const arch::Llama4Config& config, const Rules& rules, const RareOptions& options,
                        const Json& profile, std::string_view where) {
  RareExperts rare{
      .format = parse_format(options.format, kFlag), .others = rules.routed_experts, .max_error = options.max_error};
  check_format(rare.format, rare.others);
  const auto layers = layers_of(config, rare.format);
  std::vector<size_t> sizes;
  for (const auto& [layer, size] : layers) sizes.push_back(size);
  const auto rows = experts::profile_rows(profile, sizes, where);
  for (size_t l = 0; l < layers.size(); ++l) {
    std::vector<size_t> order(sizes[l]);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return rows[l][a] < rows[l][b]; });
    order.resize(static_cast<size_t>(options.share * static_cast<double>(sizes[l])));
    for (const size_t e : order) rare.experts[{layers[l].first, static_cast<int64_t>(e)}] = {.rows = rows[l][e]};
    rare.profile_rows += std::accumulate(rows[l].begin(), rows[l].end(), int64_t{0});
  }
  if (!rare.any()) fail("--rare-share", "{} of each layer's experts are none; give more", options.share);
  return rare;
}

}  // namespace puna::quant
