// Saved prefixes: exact after a restart, and no file, however wrong, puts anything false into the cache.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "engine/engine.h"
#include "io/file.h"
#include "io/safetensors.h"
#include "tests/engine/tiny.h"
#include "tests/support/golden.h"

namespace puna::engine {
namespace {

namespace fs = std::filesystem;
using test::alone;
using test::random_tokens;
using test::request_of;

const LoadedModel& tiny() {
  static const LoadedModel loaded = test::tiny_model();
  return loaded;
}

EngineOptions small_options(int64_t blocks = 100) {
  EngineOptions options;
  options.context_tokens = 32;
  options.cache_bytes = test::cache_bytes(tiny(), blocks);
  return options;
}

std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(PrefixFile, ARestartGoesOnExactly) {
  const test::TemporaryDirectory dir;
  const fs::path file = dir.path() / "prefix.safetensors";
  for (const int64_t length : {20, 64, 83}) {
    const Request request = request_of(random_tokens(length, 1), 20);
    Engine before(tiny(), small_options());
    const Generation first = before.run(*before.submit(request)).completions[0];
    EXPECT_EQ(before.save_prefix(request.prompt, file), length / 16 * 16);
    EXPECT_EQ(before.stats().used_blocks, 0);

    Engine after(tiny(), small_options());
    EXPECT_EQ(after.load_prefix(file), length / 16 * 16);
    EXPECT_EQ(after.load_prefix(file), length / 16 * 16) << "once more changes nothing";
    EXPECT_EQ(after.stats().used_blocks, 0);
    const Generation second = after.run(*after.submit(request)).completions[0];
    EXPECT_EQ(second.tokens, first.tokens);
    // The last token of 64 runs in a chunk that ended there, so that its blocks were not saved.
    EXPECT_EQ(second.reused_tokens, length == 64 ? 32 : length / 16 * 16);
    for (size_t i = 0; i < first.samples.size(); ++i)
      EXPECT_NEAR(second.samples[i].logprob, first.samples[i].logprob, 1e-4);
  }
}

// Batch invariance fixes the order of sums, so that a restored cache must give the very bits of the one that was saved.
TEST(PrefixFile, ARestartGivesTheSameBitsWithImagesToo) {
  const test::TemporaryDirectory dir;
  const fs::path file = dir.path() / "prefix.safetensors";
  for (const bool int8 : {false, true}) {
    EngineOptions options = small_options();
    options.batch_invariant = true;
    options.int8_cache = int8;
    const auto bits = [](const Generation& generation) {
      std::vector<double> values;
      for (const Sample& sample : generation.samples) values.push_back(sample.logprob);
      return values;
    };
    for (const int64_t before : {29, 60, 100}) {
      Request request = request_of({3}, 30);
      request.prompt = test::image_prompt(tiny(), before, {1, 3, 1, 5, 6, 7});
      Engine saved(tiny(), options), restored(tiny(), options);
      const Generation first = saved.run(*saved.submit(request)).completions[0];
      const int64_t positions = saved.save_prefix(request.prompt, file);
      ASSERT_GT(positions, before);
      EXPECT_EQ(restored.load_prefix(file), positions);
      const Generation second = restored.run(*restored.submit(request)).completions[0];
      EXPECT_EQ(second.reused_tokens, positions / 64 * 64);
      EXPECT_EQ(bits(second), bits(first)) << before;
      Request other = request;  // the same text with other pictures
      other.prompt = test::image_prompt(tiny(), before, {9, 3, 1, 5, 6, 7});
      EXPECT_LE(restored.run(*restored.submit(other)).completions[0].reused_tokens, before);
    }
  }
}

TEST(PrefixFile, WrongFilesAreRefusedAndLeaveNothing) {
  const test::TemporaryDirectory dir;
  const fs::path file = dir.path() / "prefix.safetensors", bad = dir.path() / "bad.safetensors";
  const Request request = request_of(random_tokens(80, 1), 10);
  Engine engine(tiny(), small_options());
  using testing::HasSubstr;
  EXPECT_THAT(error_of([&] { engine.save_prefix(request.prompt, file); }), HasSubstr("no whole block"));
  engine.run(*engine.submit(request));
  engine.save_prefix(request.prompt, file);

  const LoadedModel other = test::tiny_model({.seed = 2});
  Engine stranger(other, small_options());
  EXPECT_THAT(error_of([&] { stranger.load_prefix(file); }), HasSubstr("another model"));
  EngineOptions int8 = small_options();
  int8.int8_cache = true;
  Engine narrow(tiny(), int8);
  EXPECT_THAT(error_of([&] { narrow.load_prefix(file); }), HasSubstr("int8"));
  Engine small(tiny(), small_options(4));
  EXPECT_THAT(error_of([&] { small.load_prefix(file); }), HasSubstr("--cache-memory"));
  EXPECT_EQ(small.stats().used_blocks, 0);

  const std::string bytes = io::read_file(file, 1 << 28);
  Engine fresh(tiny(), small_options());
  for (const size_t size : {size_t{0}, size_t{7}, size_t{200}, bytes.size() - 1}) {
    std::ofstream(bad, std::ios::binary) << bytes.substr(0, size);
    EXPECT_NE(error_of([&] { fresh.load_prefix(bad); }), "no error") << size;
  }
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string copy = bytes;
    copy.replace(copy.find(from), from.size(), to);
    std::ofstream(bad, std::ios::binary) << copy;
    return error_of([&] { fresh.load_prefix(bad); });
  };
  EXPECT_THAT(changed("layers.0.keys", "layers.0.kays"), HasSubstr("layers.0.keys"));
  EXPECT_THAT(changed("puna prefix 1", "puna prefix 2"), HasSubstr("puna prefix 1"));
  EXPECT_THAT(changed("contents", "kontents"), HasSubstr("contents"));
  const Generation result = fresh.run(*fresh.submit(request)).completions[0];
  EXPECT_EQ(result.reused_tokens, 0) << "nothing of a refused file is in the cache";
  EXPECT_EQ(result.tokens, alone(tiny(), request));
}

}  // namespace
}  // namespace puna::engine
