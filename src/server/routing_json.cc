#include "server/routing_json.h"

#include <cmath>

#include "arch/layer_plan.h"

namespace puna::server {
namespace {

OrderedJson layers_json(std::span<const uint16_t> values, int64_t of_layer) {
  OrderedJson json = OrderedJson::array();
  for (size_t i = 0; i < values.size(); i += static_cast<size_t>(of_layer))
    json.push_back(values.subspan(i, static_cast<size_t>(of_layer)));
  return json;
}

OrderedJson scores_json(std::span<const uint8_t> values, int64_t of_layer) {
  OrderedJson json = OrderedJson::array();
  for (size_t i = 0; i < values.size(); ++i) {
    if (i % static_cast<size_t>(of_layer) == 0) json.push_back(OrderedJson::array());
    json.back().push_back(std::round(values[i] / 0.255) / 1000);
  }
  return json;
}

OrderedJson image_json(const text::ImageTiles& tiles, std::span<const int64_t> patches) {
  OrderedJson json = {{"rows", tiles.rows},           {"columns", tiles.columns},
                      {"tokens", patches.size()},     {"tokens_per_tile", tiles.tokens_per_tile},
                      {"position", patches.front()},  {"end", patches.back() + 1},
                      {"tiles", OrderedJson::array()}};
  for (int tile = 0; tile < tiles.num_tiles(); ++tile) {
    const bool whole = tile == tiles.rows * tiles.columns;  // after its parts, the picture as one
    OrderedJson one = {{"row", tile / tiles.columns}, {"column", tile % tiles.columns}};
    if (whole || tiles.num_tiles() == 1) one = {{"row", nullptr}, {"column", nullptr}};
    one["position"] = patches[static_cast<size_t>(tile * tiles.tokens_per_tile)];
    one["tokens"] = tiles.tokens_per_tile;
    json["tiles"].push_back(std::move(one));
  }
  return json;
}

OrderedJson images_json(const engine::Prompt& prompt, engine::TokenId patch) {
  std::vector<int64_t> patches;
  for (size_t i = 0; i < prompt.tokens.size(); ++i) {
    if (prompt.tokens[i] == patch) patches.push_back(static_cast<int64_t>(i));
  }
  OrderedJson images = OrderedJson::array();
  size_t begin = 0;
  for (const text::ImageTiles& tiles : prompt.image_tiles) {
    const size_t count = static_cast<size_t>(tiles.num_tiles()) * static_cast<size_t>(tiles.tokens_per_tile);
    images.push_back(image_json(tiles, std::span(patches).subspan(begin, count)));
    begin += count;
  }
  return images;
}

OrderedJson pool_json(const char* name, const engine::PoolStats& pool) {
  return {{"pool", name},
          {"blocks", pool.capacity},
          {"used", pool.used},
          {"kept", pool.cached},
          {"block_bytes", pool.block_bytes}};
}

}  // namespace

OrderedJson routing_json(const KeptRouting& routing, const engine::LoadedModel& loaded) {
  const arch::TextConfig& config = loaded.config().text;
  OrderedJson layers = OrderedJson::array();
  for (const arch::LayerPlan& plan : arch::layer_plan(config)) {
    if (plan.moe) layers.push_back(plan.index);
  }
  OrderedJson texts = OrderedJson::array(), ids = texts, experts = texts, scores = texts;
  const int64_t chosen = routing.record->experts_per_token();
  int64_t position = 0;
  const auto add = [&](engine::TokenId id) {
    const bool known = id < loaded.tokenizer->vocab_size();
    texts.push_back(known ? std::string(loaded.tokenizer->token_bytes(id)) : std::string());
    ids.push_back(id);
    const auto here = routing.record->experts(position);
    experts.push_back(here.empty() ? OrderedJson(nullptr) : layers_json(here, chosen));
    scores.push_back(here.empty() ? OrderedJson(nullptr) : scores_json(routing.record->scores(position), chosen));
    ++position;
  };
  for (const engine::TokenId id : routing.prompt.tokens) add(id);
  for (const engine::TokenId id : routing.generated) add(id);
  return {{"id", routing.id},
          {"object", "request.routing"},
          {"created", routing.created},
          {"num_experts", config.num_local_experts},
          {"experts_per_token", chosen},
          {"layers", std::move(layers)},
          {"prompt_tokens", routing.prompt.tokens.size()},
          {"cached_tokens", routing.reused_tokens},
          {"completion_tokens", routing.generated.size()},
          {"truncated", routing.truncated},
          {"images", images_json(routing.prompt, static_cast<engine::TokenId>(loaded.config().image_token_id))},
          {"token_ids", std::move(ids)},
          {"tokens", std::move(texts)},
          {"experts", std::move(experts)},
          {"scores", std::move(scores)}};
}

OrderedJson engine_json(const engine::EngineStats& stats) {
  OrderedJson json = {
      {"running", stats.running},
      {"waiting", stats.waiting},
      {"prompt_tokens", stats.prompt_tokens},
      {"reused_tokens", stats.reused_tokens},
      {"generated_tokens", stats.generated_tokens},
      {"cache", OrderedJson::array({pool_json("global", stats.global), pool_json("chunked", stats.chunk)})},
      {"experts", nullptr}};
  if (stats.experts) {
    json["experts"] = {{"uses", stats.experts->uses},
                       {"hits", stats.experts->hits},
                       {"hit_rate", stats.experts->hit_rate()},
                       {"bytes_read", stats.experts->bytes_read}};
  }
  return json;
}

}  // namespace puna::server
