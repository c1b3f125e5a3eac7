// Requests with adapters of their own, against a model that has the adapter always.
#include "engine/adapters.h"

#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/engine.h"
#include "tests/engine/tiny.h"

namespace puna::engine {
namespace {

using test::alone;
using test::random_tokens;
using test::request_of;
using test::tiny_model;

checkpoint::Adapter adapter_of(uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  const auto random = [&](at::IntArrayRef shape) { return at::randn(shape, generator); };
  checkpoint::Adapter adapter{"seed " + std::to_string(seed), {}};
  adapter.weights.push_back({"model.layers.1.self_attn.q_proj.weight", random({2, 32}), random({32, 2}), 0.5});
  adapter.weights.push_back({"model.layers.1.self_attn.v_proj.weight", random({2, 32}), random({16, 2}), 0.5});
  adapter.weights.push_back(
      {"model.layers.3.feed_forward.experts.down_proj", random({4, 2, 24}), random({4, 32, 2}), 0.5});
  return adapter;
}

std::vector<TokenId> with_adapter_always(const Request& request, uint64_t seed) {
  const LoadedModel loaded = tiny_model();
  loaded.model->add_adapter(adapter_of(seed));
  return alone(loaded, request);
}

size_t num_additions(const LoadedModel& loaded) {
  size_t count = 0;
  for (const auto& [name, weight] : loaded.model->weights()) count += weight.adapters.size();
  return count;
}

TEST(Adapters, EachRequestHasItsOwnInOneBatch) {
  const LoadedModel loaded = tiny_model();
  for (const bool invariant : {false, true}) {
    EngineOptions options;
    options.step_tokens = 24;
    options.batch_invariant = invariant;
    Engine engine(loaded, options);
    const auto one = engine.add_adapter(adapter_of(1)), two = engine.add_adapter(adapter_of(2));
    std::vector<std::shared_ptr<Ticket>> tickets;
    std::vector<std::vector<TokenId>> expected;
    std::vector<TokenId> without;
    for (int i = 0; i < 9; ++i) {
      // The same prompt for three in a row: what one put into the cache is nothing to the others.
      Request request = request_of(random_tokens(60, static_cast<uint64_t>(i / 3)), 20);
      request.adapter = i % 3 == 0 ? nullptr : i % 3 == 1 ? one : two;
      expected.push_back(i % 3 == 0 ? alone(loaded, request) : with_adapter_always(request, i % 3));
      tickets.push_back(engine.submit(std::move(request)));
    }
    for (size_t i = 0; i < tickets.size(); ++i)
      EXPECT_EQ(engine.run(*tickets[i]).completions[0].tokens, expected[i]) << i;
    EXPECT_NE(expected[0], expected[1]) << "the adapter changes nothing";
    EXPECT_NE(expected[1], expected[2]);
  }
}

TEST(Adapters, ThePrefixOfOneIsSharedByItsOwnRequestsAlone) {
  const LoadedModel loaded = tiny_model();
  Engine engine(loaded, {});
  const auto adapter = engine.add_adapter(adapter_of(1));
  const auto reused = [&](const std::shared_ptr<const RequestAdapter>& with) {
    Request request = request_of(random_tokens(80, 5), 2);
    request.adapter = with;
    return engine.run(*engine.submit(std::move(request))).completions[0].reused_tokens;
  };
  EXPECT_EQ(reused(nullptr), 0);
  EXPECT_EQ(reused(adapter), 0);
  EXPECT_GT(reused(adapter), 0);
  EXPECT_GT(reused(nullptr), 0);
}

TEST(Adapters, OneIsDroppedWhenNobodyHoldsItAnyMore) {
  const LoadedModel loaded = tiny_model();
  Engine engine(loaded, {});
  auto adapter = engine.add_adapter(adapter_of(1));
  Request request = request_of(random_tokens(20, 1), 30);
  request.adapter = adapter;
  const auto expected = with_adapter_always(request, 1);
  const auto ticket = engine.submit(std::move(request));
  adapter.reset();
  while (!ticket->done()) {
    engine.step();
    if (ticket->done()) break;
    EXPECT_EQ(num_additions(loaded), 3);
  }
  EXPECT_EQ(ticket->response().completions[0].tokens, expected);
  engine.step();
  EXPECT_EQ(num_additions(loaded), 0);
}

TEST(Adapters, OneThatDoesNotFitIsRefused) {
  const LoadedModel loaded = tiny_model();
  Engine engine(loaded, {});
  checkpoint::Adapter adapter = adapter_of(1);
  adapter.weights[1].parameter = "model.layers.9.self_attn.q_proj.weight";
  EXPECT_THAT([&] { engine.add_adapter(adapter); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("has no parameter 'model.layers.9")));
  engine.step();
  EXPECT_EQ(num_additions(loaded), 0);
}

// The holder may outlive the engine.
TEST(Adapters, AnEngineMayEndBeforeItsAdapters) {
  const LoadedModel loaded = tiny_model();
  std::shared_ptr<const RequestAdapter> adapter;
  {
    Engine engine(loaded, {});
    adapter = engine.add_adapter(adapter_of(1));
    engine.step();
  }
  EXPECT_EQ(adapter->name, "seed 1");
}

}  // namespace
}  // namespace puna::engine
