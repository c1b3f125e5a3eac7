#include "engine/embedding.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "engine/engine.h"
#include "tests/engine/tiny.h"

namespace puna::engine {
namespace {

using test::random_tokens;
using test::tiny_model;

std::vector<std::vector<float>> embed(Engine& engine, std::vector<std::vector<TokenId>> inputs) {
  std::vector<std::vector<float>> result;
  bool done = false;
  std::exception_ptr failure;
  EmbeddingRequest request;
  request.inputs = std::move(inputs);
  request.on_done = [&](std::vector<std::vector<float>> vectors, std::exception_ptr error) {
    result = std::move(vectors);
    failure = std::move(error);
    done = true;
  };
  engine.embed(std::move(request));
  while (!done) engine.step();
  if (failure) std::rethrow_exception(failure);
  return result;
}

// The forward without any cache, whole.
std::vector<float> expected(const LoadedModel& loaded, const std::vector<TokenId>& tokens) {
  const c10::InferenceMode guard;
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  const at::Tensor mean_D =
      loaded.model->hidden(model::Batch::single(at::tensor(ids, at::kLong))).to(at::kFloat).mean(0);
  const at::Tensor vector_D = (mean_D / mean_D.norm()).contiguous();
  return {vector_D.const_data_ptr<float>(), vector_D.const_data_ptr<float>() + vector_D.numel()};
}

TEST(Embedding, IsTheMeanOfTheHiddenStatesInAnyPieces) {
  const LoadedModel loaded = tiny_model();
  std::vector<std::vector<TokenId>> inputs;
  for (const int64_t count : {1, 5, 40, 100, 3}) inputs.push_back(random_tokens(count, static_cast<uint64_t>(count)));
  for (const int64_t step_tokens : {7, 64, 512}) {
    EngineOptions options;
    options.step_tokens = step_tokens;
    Engine engine(loaded, options);
    const auto vectors = embed(engine, inputs);
    ASSERT_EQ(vectors.size(), inputs.size());
    for (size_t i = 0; i < inputs.size(); ++i) {
      const auto wanted = expected(loaded, inputs[i]);
      ASSERT_EQ(vectors[i].size(), wanted.size());
      for (size_t d = 0; d < wanted.size(); ++d)
        EXPECT_NEAR(vectors[i][d], wanted[d], 1e-5) << "step " << step_tokens << " input " << i << " value " << d;
    }
  }
}

TEST(Embedding, AnswersGoOnBesideIt) {
  const LoadedModel loaded = tiny_model();
  const Request request = test::request_of(random_tokens(20, 1), 12);
  const auto alone = test::alone(loaded, request);
  EngineOptions options;
  options.step_tokens = 16;
  Engine engine(loaded, options);
  const auto ticket = engine.submit(request);
  EXPECT_EQ(embed(engine, {random_tokens(200, 2)}).size(), 1u);
  EXPECT_EQ(engine.run(*ticket).completions[0].tokens, alone);
}

TEST(Embedding, HasTheRowsThatAnswersLeave) {
  const LoadedModel loaded = tiny_model();
  EngineOptions options;
  options.step_tokens = 16;
  Engine engine(loaded, options);
  bool done = false;
  EmbeddingRequest request;
  request.inputs = {random_tokens(100, 2)};
  request.on_done = [&](auto, const std::exception_ptr&) { done = true; };
  engine.embed(request);
  engine.step();
  EXPECT_EQ(engine.stats().embedded_tokens, 16);
  const auto ticket = engine.submit(test::request_of(random_tokens(40, 1), 30));
  for (const int64_t expected : {16 + 4, 16 + 8, 16 + 8 + 8}) {  // a prompt of 16, 16 and 8 rows
    engine.step();
    EXPECT_EQ(engine.stats().embedded_tokens, expected);
  }
  engine.step();
  EXPECT_EQ(engine.stats().embedded_tokens, 16 + 8 + 8 + 15);  // an answer takes one
  while (!done) engine.step();
  EXPECT_EQ(engine.stats().embedded_tokens, 100);
}

TEST(Embedding, WrongInputsAreRefusedAndCancelledOnesEnd) {
  const LoadedModel loaded = tiny_model();
  Engine engine(loaded, {});
  EXPECT_THROW(embed(engine, {}), Error);
  EXPECT_THROW(embed(engine, {{}}), Error);
  EXPECT_THROW(embed(engine, {{100'000}}), Error);
  EXPECT_THROW(embed(engine, {random_tokens(5000, 1)}), Error);
  bool failed = false;
  EmbeddingRequest request;
  request.inputs = {random_tokens(10, 1)};
  request.cancelled = [] { return true; };
  request.on_done = [&](auto, const std::exception_ptr& error) { failed = error != nullptr; };
  engine.embed(std::move(request));
  engine.step();
  EXPECT_TRUE(failed);
}

TEST(Embedding, ShortOnesDoNotWaitForAllInputsOfALongOne) {
  const LoadedModel loaded = tiny_model();
  EngineOptions options;
  options.step_tokens = 16;
  Engine engine(loaded, options);
  std::vector<std::string> ended;
  const auto add = [&](const char* name, std::vector<std::vector<TokenId>> inputs, bool cancelled = false) {
    EmbeddingRequest request;
    request.inputs = std::move(inputs);
    request.cancelled = [cancelled] { return cancelled; };
    request.on_done = [&ended, name](auto, const std::exception_ptr& error) {
      ended.push_back(error ? std::string(name) + " failed" : name);
    };
    engine.embed(std::move(request));
  };
  add("long", std::vector<std::vector<TokenId>>(20, random_tokens(40, 1)));
  add("short", {random_tokens(3, 2)});
  add("left", {random_tokens(40, 3)}, /*cancelled=*/true);
  engine.step();
  EXPECT_EQ(ended, std::vector<std::string>{"left failed"});
  for (int step = 0; step < 5; ++step) engine.step();
  EXPECT_EQ(ended, (std::vector<std::string>{"left failed", "short"}));
  while (ended.size() < 3) engine.step();
  EXPECT_EQ(ended.back(), "long");
}

}  // namespace
}  // namespace puna::engine
