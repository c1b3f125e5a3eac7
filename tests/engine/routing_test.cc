// What is recorded of routers is what a plain pass over the same tokens chooses, however the engine ran them.
#include <gtest/gtest.h>

#include "arch/layer_plan.h"
#include "engine/engine.h"
#include "engine/routing_record.h"
#include "tests/engine/tiny.h"

namespace puna::engine {
namespace {

using test::random_tokens;
using test::request_of;

const LoadedModel& tiny() {
  static const LoadedModel loaded = test::tiny_model();
  return loaded;
}

EngineOptions small_options() {
  EngineOptions options;
  options.step_tokens = 24;  // prompts come in pieces
  options.max_sequences = 8;
  options.context_tokens = 128;
  options.cache_bytes = test::cache_bytes(tiny(), 300);
  return options;
}

std::vector<int64_t> expert_layers() {
  std::vector<int64_t> layers;
  for (const arch::LayerPlan& plan : arch::layer_plan(tiny().config().text)) {
    if (plan.moe) layers.push_back(plan.index);
  }
  return layers;
}

std::shared_ptr<RoutingRecord> new_record(int64_t most = 4096) {
  return std::make_shared<RoutingRecord>(std::ssize(expert_layers()), tiny().config().text.num_experts_per_tok, most);
}

/// Positions from `known` on are recorded as a pass over all tokens has them; those before are not known.
void expect_as_plain(const RoutingRecord& record, const std::vector<TokenId>& tokens, int64_t known) {
  const c10::InferenceMode guard;
  model::Trace trace;
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  tiny().model->forward(model::Batch::single(at::tensor(ids, at::kLong)), &trace);
  const auto layers = expert_layers();
  const int64_t A = record.experts_per_token();
  ASSERT_GE(record.positions(), std::ssize(tokens) - 1) << "the last token is written and not read";
  for (int64_t position = 0; position + 1 < std::ssize(tokens); ++position) {
    ASSERT_EQ(record.experts(position).empty(), position < known) << position;
    for (int64_t layer = 0; layer < std::ssize(layers) && position >= known; ++layer) {
      const std::string name = fmt::format("layers.{}.", layers[static_cast<size_t>(layer)]);
      const at::Tensor chosen = trace.at(name + "selected"), scores = trace.at(name + "router_scores");
      for (int64_t a = 0; a < A; ++a) {
        const int expert = chosen[position][a].item<int>();
        const auto at = static_cast<size_t>(layer * A + a);
        EXPECT_EQ(record.experts(position)[at], expert) << position << " " << layer;
        EXPECT_NEAR(record.scores(position)[at] / 255.0, scores[position][expert].item<double>(), 0.51 / 255 + 1e-4);
      }
    }
  }
}

std::vector<TokenId> all_tokens(const Request& request, const Response& response) {
  std::vector<TokenId> tokens = request.prompt.tokens;
  tokens.insert(tokens.end(), response.completions[0].tokens.begin(), response.completions[0].tokens.end());
  return tokens;
}

TEST(RoutingRecord, IsThatOfAPlainPassInACrowd) {
  Engine engine(tiny(), small_options());
  std::vector<Request> requests;
  std::vector<std::shared_ptr<Ticket>> tickets;
  for (uint64_t i = 0; i < 4; ++i) {
    requests.push_back(request_of(random_tokens(40 + 9 * static_cast<int64_t>(i), i), 20));
    if (i != 1) requests.back().routing = new_record();
    tickets.push_back(engine.submit(requests.back()));
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    const Response response = engine.run(*tickets[i]);
    if (requests[i].routing) expect_as_plain(*requests[i].routing, all_tokens(requests[i], response), 0);
  }
}

TEST(RoutingRecord, HoldsNoGuessThatWasRejected) {
  EngineOptions options = small_options();
  options.lookup_tokens = 4;
  Engine engine(tiny(), options);
  std::vector<TokenId> tokens;
  for (int i = 0; i < 5; ++i)
    for (const TokenId id : random_tokens(9, 3)) tokens.push_back(id);
  Request request = request_of(tokens, 50);
  request.routing = new_record();
  const Response response = engine.run(*engine.submit(request));
  ASSERT_GT(engine.stats().drafted_tokens, engine.stats().accepted_tokens);
  expect_as_plain(*request.routing, all_tokens(request, response), 0);
}

TEST(RoutingRecord, LeavesOutWhatCameFromTheCache) {
  Engine engine(tiny(), small_options());
  Request request = request_of(random_tokens(70, 5), 8);
  engine.run(*engine.submit(request));
  request.routing = new_record();
  const Response response = engine.run(*engine.submit(request));
  ASSERT_GT(response.completions[0].reused_tokens, 0);
  expect_as_plain(*request.routing, all_tokens(request, response), response.completions[0].reused_tokens);
}

TEST(RoutingRecord, EndsAtItsLimit) {
  Engine engine(tiny(), small_options());
  Request request = request_of(random_tokens(70, 6), 8);
  request.routing = new_record(33);
  engine.run(*engine.submit(request));
  EXPECT_EQ(request.routing->positions(), 33);
  EXPECT_TRUE(request.routing->experts(33).empty());
  EXPECT_FALSE(request.routing->experts(32).empty());
}

TEST(RoutingRecord, PoolsAddUpToTheWhole) {
  Engine engine(tiny(), small_options());
  engine.run(*engine.submit(request_of(random_tokens(70, 7), 8)));
  const EngineStats stats = engine.stats();
  EXPECT_EQ(stats.global.capacity + stats.chunk.capacity, stats.capacity_blocks);
  EXPECT_EQ(stats.global.cached + stats.chunk.cached, stats.cached_blocks);
  EXPECT_EQ(stats.global.capacity * stats.global.block_bytes + stats.chunk.capacity * stats.chunk.block_bytes,
            stats.capacity_bytes);
  EXPECT_GT(stats.global.cached, 0);
}

}  // namespace
}  // namespace puna::engine
