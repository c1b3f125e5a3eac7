// Experts on disk, through the engine: the least --memory that works, the same text, and files that are damaged while
// they are in use.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "checkpoint/packed_file.h"
#include "engine/engine.h"
#include "tests/engine/tiny.h"
#include "tests/support/golden.h"

namespace puna::engine {
namespace {

namespace fs = std::filesystem;
using test::random_tokens;
using test::request_of;
using testing::HasSubstr;

/// A small model with routed experts, packed once for all tests.
class Streamed : public testing::Test {
 protected:
  Streamed() {
    const fs::path model = test::golden_data() / "quant" / "w4a16_a";
    checkpoint::write_packed(model, *checkpoint::open_model(model), dir(), 1, nullptr);
  }
  fs::path dir() const { return place_.path() / "packed"; }

  LoadedModel load(int64_t memory_bytes) const {
    LoadOptions options;
    options.model = dir();
    options.need_tokenizer = false;
    options.check_memory = false;
    options.context_tokens = 256;
    options.memory_bytes = memory_bytes;
    options.dtype = at::kFloat;
    return load_model(options);
  }

  std::string refusal(int64_t memory_bytes) const {
    try {
      load(memory_bytes);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  /// The least memory that is not refused, by trying.
  int64_t least() const {
    const auto source = checkpoint::open_model(dir());
    const model::LoadOptions load = {at::kFloat, at::kCPU, model::WeightForm::kStored};
    int64_t refused = 1, works = memory_need(*source, load, 256).total();
    while (works - refused > 1) {
      const int64_t middle = refused + (works - refused) / 2;
      try {
        expert_bytes(*source, load, 256, middle, "m");
        works = middle;
      } catch (const Error&) {
        refused = middle;
      }
    }
    return works;
  }

  static std::vector<std::shared_ptr<Ticket>> submit_some(Engine& engine) {
    std::vector<std::shared_ptr<Ticket>> tickets;
    for (uint64_t i = 0; i < 5; ++i) {
      tickets.push_back(engine.submit(request_of(random_tokens(20 + 9 * static_cast<int64_t>(i), i), 12)));
    }
    return tickets;
  }

  static EngineOptions small_options() {
    EngineOptions options;
    options.step_tokens = 24;
    options.context_tokens = 64;
    options.cache_bytes = 4 << 20;
    options.batch_invariant = true;
    return options;
  }

  static std::vector<std::vector<TokenId>> texts(const LoadedModel& loaded) {
    Engine engine(loaded, small_options());
    std::vector<std::vector<TokenId>> all;
    for (const auto& ticket : submit_some(engine)) all.push_back(engine.run(*ticket).completions[0].tokens);
    return all;
  }

  /// All requests end with an error that says `what`, now and later, and the engine goes on.
  static void expect_errors(const LoadedModel& loaded, const std::function<void()>& damage, const char* what) {
    Engine engine(loaded, small_options());
    for (const auto& ticket : submit_some(engine)) engine.run(*ticket);
    damage();
    for (int again = 0; again < 2; ++again) {
      std::vector<std::string> errors;
      for (uint64_t i = 0; i < 4; ++i) {
        try {
          engine.run(*engine.submit(request_of(random_tokens(60, 100 + 10 * i + static_cast<uint64_t>(again)), 12)));
        } catch (const Error& error) {
          errors.emplace_back(error.what());
        }
      }
      EXPECT_THAT(errors, testing::AllOf(testing::SizeIs(4), testing::Each(HasSubstr(what)))) << again;
      EXPECT_THAT(errors, testing::Each(HasSubstr(checkpoint::kPackedFile)));
      EXPECT_EQ(engine.stats().used_blocks, 0);
    }
    EXPECT_FALSE(engine.step());
  }

 private:
  test::TemporaryDirectory place_;
};

TEST_F(Streamed, TheLeastMemoryThatIsNamedWorksAndLessIsRefusedBeforeLoading) {
  const int64_t bytes = least();
  EXPECT_THAT(refusal(1), HasSubstr(fmt::format("--memory {}MiB", (bytes + (1 << 20) - 1) >> 20)));
  EXPECT_THAT(refusal(bytes - 1), HasSubstr("room for two"));
  const LoadedModel streamed = load(bytes), all = load(0);
  ASSERT_NE(streamed.model->expert_store(), nullptr);
  EXPECT_EQ(all.model->expert_store(), nullptr);
  EXPECT_EQ(texts(streamed), texts(all));
  EXPECT_EQ(streamed.model->expert_store()->num_slots(), 2);
  EXPECT_GT(streamed.model->expert_store()->statistics().uses, 0);
}

TEST_F(Streamed, AFileThatIsCutEndsAnswersWithAnError) {
  const LoadedModel loaded = load(least());
  expect_errors(
      loaded, [&] { fs::resize_file(dir() / checkpoint::kPackedFile, 4096); }, "start again");
}

TEST_F(Streamed, AFileThatIsWrittenOverEndsAnswersWithAnError) {
  const LoadedModel loaded = load(least());
  const auto overwrite = [&] {
    std::fstream file(dir() / checkpoint::kPackedFile, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(8192);
    file.write(std::string(4096, 'x').data(), 4096);
  };
  expect_errors(loaded, overwrite, "was changed while it was in use");
}

}  // namespace
}  // namespace puna::engine
