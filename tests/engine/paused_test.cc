// Requests that wait for their clients: they neither run nor hold up others, and go on as if nothing had been.
#include <gtest/gtest.h>

#include "engine/engine.h"
#include "tests/engine/tiny.h"

namespace puna::engine {
namespace {

using test::alone;
using test::random_tokens;
using test::request_of;

TEST(Paused, WaitsWhileOthersRunAndThenGoesOnAsBefore) {
  const LoadedModel loaded = test::tiny_model();
  Engine engine(loaded, {});
  bool pause = false;
  int64_t told = 0;
  Request slow = request_of(random_tokens(20, 1), 30);
  slow.paused = [&] { return pause; };
  slow.on_token = [&](int, const Sample&) { ++told; };
  const Request other = request_of(random_tokens(25, 2), 40);
  const auto waiting = engine.submit(slow);
  while (told < 5) engine.step();
  pause = true;
  engine.step();
  const int64_t then = told;
  const auto ticket = engine.submit(other);
  EXPECT_EQ(engine.run(*ticket).completions[0].tokens, alone(loaded, other));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(engine.step()) << "there is still something to do";
  EXPECT_EQ(told, then);
  EXPECT_FALSE(waiting->done());
  pause = false;
  EXPECT_EQ(engine.run(*waiting).completions[0].tokens, alone(loaded, slow));
}

TEST(Paused, GivesItsPlaceToOnesThatNeedIt) {
  const LoadedModel loaded = test::tiny_model();
  EngineOptions options;
  options.max_sequences = 1;
  Engine engine(loaded, options);
  bool pause = false;
  Request slow = request_of(random_tokens(20, 1), 30);
  slow.paused = [&] { return pause; };
  const auto waiting = engine.submit(slow);
  for (int i = 0; i < 4; ++i) engine.step();
  pause = true;
  const Request other = request_of(random_tokens(25, 2), 10);
  EXPECT_EQ(engine.run(*engine.submit(other)).completions[0].tokens, alone(loaded, other));
  pause = false;
  const Response response = engine.run(*waiting);
  EXPECT_EQ(response.completions[0].tokens, alone(loaded, slow));
  EXPECT_EQ(response.completions[0].preemptions, 1);
}

TEST(Paused, OneThatIsCancelledEndsAllTheSame) {
  const LoadedModel loaded = test::tiny_model();
  Engine engine(loaded, {});
  Request slow = request_of(random_tokens(20, 1), 30);
  slow.paused = [] { return true; };
  const auto ticket = engine.submit(slow);
  for (int i = 0; i < 3; ++i) engine.step();
  EXPECT_FALSE(ticket->done());
  ticket->cancel();
  EXPECT_EQ(engine.run(*ticket).completions[0].reason, StopReason::kCancelled);
}

}  // namespace
}  // namespace puna::engine
