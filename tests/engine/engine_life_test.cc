// Requests that do not simply run to their end: cancelled, late, pushed out, failing, with images, beside others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <thread>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/sequence.h"
#include "tests/engine/tiny.h"

namespace puna::engine {
namespace {

using test::alone;
using test::image_prompt;
using test::random_tokens;
using test::request_of;

const LoadedModel& tiny() {
  static const LoadedModel loaded = test::tiny_model();
  return loaded;
}

EngineOptions small_options() {
  EngineOptions options;
  options.step_tokens = 16;
  options.max_sequences = 8;
  options.context_tokens = 32;
  options.cache_bytes = test::cache_bytes(tiny(), 200);
  return options;
}

TEST(EngineLife, CancelledAtEveryStageOthersGoOn) {
  const Request other = request_of(random_tokens(40, 2), 30);
  const auto expected = alone(tiny(), other);
  // The request of 60 tokens reads its prompt in steps 1 to about 8 and answers from then on.
  for (const int after : {0, 1, 3, 7, 8, 12, 30}) {
    Engine engine(tiny(), small_options());
    Request request = request_of(random_tokens(60, 1), 1000);
    request.completions = 3;
    const auto ticket = engine.submit(request), beside = engine.submit(other);
    for (int i = 0; i < after; ++i) engine.step();
    EXPECT_FALSE(ticket->done());
    ticket->cancel();
    EXPECT_EQ(engine.run(*beside).completions[0].tokens, expected) << after;
    ASSERT_TRUE(ticket->done()) << after;
    ASSERT_EQ(ticket->response().completions.size(), 3u);
    for (const Generation& one : ticket->response().completions) EXPECT_EQ(one.reason, StopReason::kCancelled) << after;
    EXPECT_EQ(ticket->response().completions[0].tokens.empty(), after < 7) << after;
    EXPECT_EQ(engine.stats().used_blocks, 0) << after;
    EXPECT_FALSE(engine.step());
  }
}

TEST(EngineLife, CancelledFromItsOwnCallbackAndByItsFlag) {
  Engine engine(tiny(), small_options());
  std::atomic<bool> flag = false;
  Request request = request_of(random_tokens(50, 1), 1000);
  request.on_prefill = [&](int64_t done, int64_t total) { flag = 2 * done > total; };
  request.cancel = &flag;
  int finished = 0;
  request.on_done = [&](const Response& response) {
    ++finished;
    EXPECT_TRUE(response.completions[0].tokens.empty());
  };
  EXPECT_EQ(engine.run(*engine.submit(request)).completions[0].reason, StopReason::kCancelled);
  EXPECT_EQ(finished, 1);
  EXPECT_EQ(engine.stats().used_blocks, 0);
}

// Where a request can be without running: behind others, behind a prompt that it shares, pushed out.
TEST(EngineLife, CancelledWhileItWaits) {
  const std::vector<TokenId> prompt = random_tokens(180, 1);
  for (const bool shared : {false, true}) {
    EngineOptions options = small_options();
    options.max_sequences = shared ? 8 : 1;
    Engine engine(tiny(), options);
    const Request first = request_of(prompt, 20);
    const auto running = engine.submit(first);
    engine.step();
    const auto waiting = engine.submit(first), also = engine.submit(first);
    for (int i = 0; i < 2; ++i) engine.step();
    EXPECT_EQ(engine.stats().waiting, 2);
    waiting->cancel();
    EXPECT_EQ(engine.run(*running).completions[0].tokens, alone(tiny(), first));
    EXPECT_TRUE(waiting->done());
    EXPECT_EQ(waiting->response().completions[0].reason, StopReason::kCancelled);
    EXPECT_EQ(engine.run(*also).completions[0].tokens, alone(tiny(), first));
    EXPECT_EQ(engine.stats().used_blocks, 0);
  }
}

TEST(EngineLife, CancelledWhilePushedOut) {
  EngineOptions options = small_options();
  options.cache_bytes = test::cache_bytes(tiny(), 12);
  Engine engine(tiny(), options);
  std::vector<std::shared_ptr<Ticket>> tickets;
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 4; ++i) requests.push_back(request_of(random_tokens(30, i), 80));
  for (const Request& request : requests) tickets.push_back(engine.submit(request));
  while (engine.stats().preemptions == 0) ASSERT_TRUE(engine.step());
  tickets[3]->cancel();  // the last to come is the first to go
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(engine.run(*tickets[i]).completions[0].tokens, alone(tiny(), requests[i]));
  const Generation& last = tickets[3]->response().completions[0];
  EXPECT_EQ(last.reason, StopReason::kCancelled);
  EXPECT_GT(last.preemptions, 0);
  EXPECT_EQ(engine.stats().used_blocks, 0);
}

TEST(EngineLife, WhatIsLeftWhenServingStopsIsCancelled) {
  Engine engine(tiny(), small_options());
  std::shared_ptr<Ticket> ticket;
  {
    std::jthread server([&](std::stop_token stop) { engine.serve(stop); });
    ticket = engine.submit(request_of(random_tokens(5, 1), 3000));
    while (engine.stats().generated_tokens < 5) std::this_thread::yield();
  }
  ASSERT_TRUE(ticket->done());
  EXPECT_EQ(ticket->response().completions[0].reason, StopReason::kCancelled);
  EXPECT_GE(std::ssize(ticket->response().completions[0].tokens), 5);
}

TEST(EngineLife, ADeadlineGivesWhatThereIs) {
  Engine engine(tiny(), small_options());
  Request late = request_of(random_tokens(5, 1), 10);
  late.deadline = Clock::now() - std::chrono::seconds(1);
  const Generation none = engine.run(*engine.submit(late)).completions[0];
  EXPECT_EQ(none.reason, StopReason::kDeadline);
  EXPECT_TRUE(none.tokens.empty());
}

// A deadline that passes while others are read: the answer is what was written before it.
TEST(EngineLife, ADeadlinePassesInThePromptInTheAnswerAndInTheQueue) {
  EngineOptions options = small_options();
  options.max_sequences = 2;
  Engine engine(tiny(), options);
  const auto deadline = Clock::now() + std::chrono::seconds(2);
  Request answering = request_of(random_tokens(5, 1), 3000), reading = request_of(random_tokens(400, 2), 10),
          queued = request_of(random_tokens(9, 3), 10);
  for (Request* request : {&answering, &reading, &queued}) request->deadline = deadline;
  const auto expected = alone(tiny(), request_of(random_tokens(5, 1), 8));
  const auto a = engine.submit(answering), b = engine.submit(reading), c = engine.submit(queued);
  for (int i = 0; i < 8; ++i) engine.step();
  ASSERT_LT(Clock::now(), deadline);
  std::this_thread::sleep_until(deadline);
  engine.step();
  for (const auto& ticket : {a, b, c}) {
    ASSERT_TRUE(ticket->done());
    EXPECT_EQ(ticket->response().completions[0].reason, StopReason::kDeadline);
  }
  EXPECT_EQ(a->response().completions[0].tokens, expected);
  EXPECT_TRUE(b->response().completions[0].tokens.empty());
  EXPECT_TRUE(c->response().completions[0].tokens.empty());
  EXPECT_EQ(engine.stats().used_blocks, 0);
}

TEST(EngineLife, GreaterPriorityGoesFirstAndPushesOut) {
  EngineOptions options = small_options();
  options.max_sequences = 2;
  Engine engine(tiny(), options);
  std::vector<std::string> order;
  const auto submit = [&](const char* name, int priority, uint64_t seed) {
    Request request = request_of(random_tokens(30, seed), 20);
    request.priority = priority;
    request.on_done = [&order, name](const Response&) { order.emplace_back(name); };
    return engine.submit(request);
  };
  const auto first = submit("low 1", 0, 1);
  submit("low 2", 0, 2);
  for (int i = 0; i < 6; ++i) engine.step();
  submit("high 1", 5, 3);
  submit("high 2", 5, 4);
  submit("low 3", 0, 5);
  while (engine.step()) {
  }
  EXPECT_THAT(order, testing::ElementsAre("high 1", "high 2", "low 1", "low 2", "low 3"));
  EXPECT_EQ(first->response().completions[0].tokens, alone(tiny(), request_of(random_tokens(30, 1), 20)));
  EXPECT_GT(engine.stats().preemptions, 0);
}

// One answer under way, a very long prompt, then short ones: all advance in every few steps, and no step is longer.
TEST(EngineLife, NoStepIsLongerThanItsBudgetAndNobodyStarves) {
  EngineOptions options = small_options();
  options.cache_bytes = test::cache_bytes(tiny(), 800);
  Engine engine(tiny(), options);
  const auto answering = engine.submit(request_of(random_tokens(4, 1), 200));
  engine.step();
  int64_t long_done = 0, short_end = -1;
  Request huge = request_of(random_tokens(3000, 2), 2), small = request_of(random_tokens(20, 3), 2);
  huge.on_prefill = [&](int64_t done, int64_t) { long_done = done; };
  engine.submit(huge);
  int64_t steps = 0;
  small.on_done = [&](const Response&) { short_end = steps; };
  engine.submit(small);
  for (; steps < 60; ++steps) {
    const EngineStats before = engine.stats();
    const int64_t done = long_done;
    ASSERT_TRUE(engine.step());
    EXPECT_LE(engine.stats().rows - before.rows, options.step_tokens);
    EXPECT_GE(engine.stats().generated_tokens - before.generated_tokens, 1) << "the answer waits at step " << steps;
    EXPECT_GT(long_done, done) << "the long prompt waits at step " << steps;
  }
  EXPECT_GE(short_end, 0);
  EXPECT_LT(short_end, 10) << "a short prompt behind a long one";
  answering->cancel();
}

TEST(EngineLife, MoreAnswersThanRowsOfAStepTakeTurns) {
  EngineOptions options = small_options();
  options.step_tokens = 3;
  Engine engine(tiny(), options);
  std::vector<std::shared_ptr<Ticket>> tickets;
  std::vector<Request> requests;
  for (uint64_t i = 0; i < 8; ++i) requests.push_back(request_of(random_tokens(2 + i, i), 12));
  for (const Request& request : requests) tickets.push_back(engine.submit(request));
  for (size_t i = 0; i < tickets.size(); ++i)
    EXPECT_EQ(engine.run(*tickets[i]).completions[0].tokens, alone(tiny(), requests[i])) << i;
}

TEST(EngineLife, ACallbackThatThrowsEndsItsRequestAlone) {
  Engine engine(tiny(), small_options());
  const Request other = request_of(random_tokens(40, 2), 10);
  Request bad = request_of(random_tokens(20, 1), 10);
  bad.completions = 2;
  bad.on_prefill = [](int64_t done, int64_t) {
    if (done >= 16) throw std::runtime_error("the client is gone");
  };
  const auto broken = engine.submit(bad), beside = engine.submit(other);
  EXPECT_EQ(engine.run(*beside).completions[0].tokens, alone(tiny(), other));
  EXPECT_THROW(engine.run(*broken), std::runtime_error);
  EXPECT_EQ(engine.stats().used_blocks, 0);
}

// Chunks of 32, steps of 16: images begin before an edge and end after it, in pieces of every size.
TEST(EngineLife, ImagesAcrossChunkEdgesAndStepsAreAsAlone) {
  Engine engine(tiny(), small_options());
  const at::InferenceMode guard;
  const Request beside = request_of(random_tokens(70, 5), 25);
  for (const int64_t before : {0, 13, 29, 30, 31}) {
    Request request = request_of({3}, 12);
    request.prompt = image_prompt(tiny(), before, {1, 3, 1});
    const auto expected = alone(tiny(), request);
    const auto first = engine.submit(request), other = engine.submit(beside);
    EXPECT_EQ(engine.run(*first).completions[0].tokens, expected) << before;
    EXPECT_EQ(engine.run(*other).completions[0].tokens, alone(tiny(), beside)) << before;
  }
}

TEST(EngineLife, TheSamePictureIsSharedAndAnotherIsNot) {
  Engine engine(tiny(), small_options());
  const at::InferenceMode guard;
  Request request = request_of({3}, 4);
  request.prompt = image_prompt(tiny(), 10, {1, 2, 3, 4});
  const int64_t total = std::ssize(request.prompt.tokens);
  engine.run(*engine.submit(request));
  EXPECT_EQ(engine.run(*engine.submit(request)).completions[0].reused_tokens, total / 16 * 16 - (total % 16 == 0));
  Request other = request;
  other.prompt = image_prompt(tiny(), 10, {1, 2, 9, 4});
  const Generation result = engine.run(*engine.submit(other)).completions[0];
  EXPECT_LE(result.reused_tokens, 10 + 2 * 7);
  EXPECT_EQ(result.tokens, alone(tiny(), other));
  Request wrong = request;
  wrong.prompt.image_rows = {4, 4, 4, 3};
  EXPECT_THROW(engine.submit(wrong), Error);
}

}  // namespace
}  // namespace puna::engine
