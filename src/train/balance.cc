#include "train/balance.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace puna::train {

void update_selection_bias(at::Tensor& bias, const std::vector<int64_t>& expert_rows, double rate) {
  const c10::NoGradGuard no_grad;
  const auto num_experts = static_cast<int64_t>(expert_rows.size());
  const int64_t total = std::accumulate(expert_rows.begin(), expert_rows.end(), int64_t{0});
  float* values = bias.mutable_data_ptr<float>();
  double mean = 0;
  for (int64_t e = 0; e < num_experts; ++e) {
    const int64_t excess = expert_rows[e] * num_experts - total;
    values[e] += static_cast<float>(excess > 0 ? -rate : excess < 0 ? rate : 0);
    mean += values[e];
  }
  mean /= static_cast<double>(num_experts);
  for (int64_t e = 0; e < num_experts; ++e) values[e] = static_cast<float>(values[e] - mean);
}

std::vector<LayerLoad> layer_loads(const std::vector<model::RoutingStatistics>& routing) {
  std::vector<LayerLoad> loads;
  for (size_t i = 0; i < routing.size(); ++i) {
    const model::RoutingStatistics& layer = routing[i];
    if (layer.expert_rows.empty() || layer.tokens == 0) continue;
    const auto total =
        static_cast<double>(std::accumulate(layer.expert_rows.begin(), layer.expert_rows.end(), int64_t{0}));
    const auto tokens = static_cast<double>(layer.tokens);
    LayerLoad load{.layer = static_cast<int>(i),
                   .load = {},
                   .image_share = {},
                   .router_entropy = layer.entropy_sum / tokens,
                   .load_entropy = 0,
                   .max_violation = 0,
                   .bias_flips = static_cast<double>(layer.bias_flips) / tokens};
    for (const int64_t rows : layer.expert_rows) {
      const double share = static_cast<double>(rows) / total;
      load.load.push_back(share);
      if (share > 0) load.load_entropy -= share * std::log(share);
    }
    const auto num_experts = static_cast<double>(layer.expert_rows.size());
    load.max_violation = *std::ranges::max_element(load.load) * num_experts - 1;
    if (std::ranges::any_of(layer.expert_image_rows, [](int64_t rows) { return rows > 0; }))
      for (size_t e = 0; e < layer.expert_rows.size(); ++e)
        load.image_share.push_back(layer.expert_rows[e] == 0 ? 0
                                                             : static_cast<double>(layer.expert_image_rows[e]) /
                                                                   static_cast<double>(layer.expert_rows[e]));
    loads.push_back(std::move(load));
  }
  return loads;
}

Json to_json(const LayerLoad& load) {
  Json json = {{"layer", load.layer},
               {"load", load.load},
               {"entropy", load.router_entropy},
               {"load_entropy", load.load_entropy},
               {"max_violation", load.max_violation},
               {"bias_flips", load.bias_flips}};
  if (!load.image_share.empty()) json["image_share"] = load.image_share;
  return json;
}

std::vector<std::string> DeadExperts::update(const std::vector<LayerLoad>& loads, const BalanceConfig& config) {
  std::vector<std::string> warnings;
  for (const LayerLoad& load : loads) {
    Layer& layer = layers_[load.layer];
    layer.steps_dead.resize(load.load.size(), 0);
    std::vector<int64_t> dead;
    for (size_t e = 0; e < load.load.size(); ++e) {
      const bool low = load.load[e] < config.dead_fraction / static_cast<double>(load.load.size());
      layer.steps_dead[e] = low ? layer.steps_dead[e] + 1 : 0;
      if (layer.steps_dead[e] >= config.dead_steps) dead.push_back(static_cast<int64_t>(e));
    }
    if (dead == layer.told) continue;
    layer.told = dead;
    if (!dead.empty())
      warnings.push_back(
          fmt::format("layer {}: expert{} {} got almost no tokens for {} steps; raise balance.bias_rate or "
                      "balance.load_balance_weight",
                      load.layer, dead.size() > 1 ? "s" : "", fmt::join(dead, ", "), config.dead_steps));
  }
  return warnings;
}

Json DeadExperts::state() const {
  Json json = Json::array();
  for (const auto& [index, layer] : layers_)
    json.push_back({{"layer", index}, {"steps", layer.steps_dead}, {"told", layer.told}});
  return json;
}

void DeadExperts::restore(const Json& state) {
  layers_.clear();
  for (const Json& item : state)
    layers_[item.at("layer").get<int>()] = {item.at("steps").get<std::vector<int64_t>>(),
                                            item.at("told").get<std::vector<int64_t>>()};
}

}  // namespace puna::train
