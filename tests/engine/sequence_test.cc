// The sequence against golden files: whatever is reused or cut into pieces, the logits are those of a cold run.
#include "engine/sequence.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "io/safetensors.h"
#include "tests/support/golden.h"

namespace puna::engine {
namespace {

namespace fs = std::filesystem;

LoadedModel load(const fs::path& checkpoint) {
  LoadOptions options;
  options.model = checkpoint;
  options.dtype = at::kFloat;
  options.need_tokenizer = false;
  return load_model(options);
}

std::vector<float> logits_of(Sequence& sequence, const Prompt& prompt, int64_t piece = 2048) {
  PrefillOptions options;
  options.piece_tokens = piece;
  const auto logits = sequence.prefill(prompt, options).value();
  return {logits.begin(), logits.end()};
}

std::vector<float> cold(const LoadedModel& loaded, const Prompt& prompt) {
  Sequence sequence(loaded);
  return logits_of(sequence, prompt);
}

Prompt prompt_of(std::vector<TokenId> tokens) {
  Prompt prompt;
  prompt.tokens = std::move(tokens);
  return prompt;
}

std::vector<TokenId> counting(int64_t count, TokenId first = 3) {
  std::vector<TokenId> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<TokenId>((first + i * 7) % 400));
  return tokens;
}

std::vector<fs::path> checkpoints() {
  std::vector<fs::path> found;
  for (const fs::path& set : test::golden_sets())
    for (const char* name : {"a_scout", "c_top2", "d_text"})
      if (fs::exists(set / "ckpt" / name)) found.push_back(set / "ckpt" / name);
  return found;
}

TEST(Sequence, GreedyContinuationIsTheGoldenOne) {
  int compared = 0;
  for (const fs::path& set : test::golden_sets())
    for (const char* variant : {"a_scout", "b_maverick", "c_top2", "d_text"}) {
      if (!fs::exists(set / "goldens" / variant / "text.json")) continue;
      const LoadedModel loaded = load(set / "ckpt" / variant);
      const Json text = read_json_file(set / "goldens" / variant / "text.json");
      for (const auto& [n, golden] : text["greedy"].items()) {
        Sequence sequence(loaded);
        SamplingParams params;
        params.temperature = 0;
        Sampler sampler(params);
        auto logits = sequence.prefill(prompt_of(golden["prompt"].get<std::vector<TokenId>>())).value();
        for (size_t i = 0; i < golden["tokens"].size(); ++i) {
          const TokenId id = sampler.sample(logits).id;
          if (id != golden["tokens"][i].get<TokenId>()) {
            EXPECT_LT(golden["margins"][i].get<double>(), 1e-3) << variant << " " << n << " token " << i;
            break;
          }
          ++compared;
          logits = sequence.step(id);
        }
      }
    }
  EXPECT_GT(compared, 100);
}

TEST(Sequence, PiecesOfAnySizeGiveTheSameLogits) {
  for (const fs::path& checkpoint : checkpoints()) {
    const LoadedModel loaded = load(checkpoint);
    const Prompt prompt = prompt_of(counting(61));
    const auto whole = cold(loaded, prompt);
    for (const int64_t piece : {1, 5, 16, 17, 60}) {
      Sequence sequence(loaded);
      EXPECT_TRUE(test::all_close(logits_of(sequence, prompt, piece), whole, 1e-4)) << checkpoint << " " << piece;
    }
  }
}

TEST(Sequence, ReuseEqualsAColdRunWhereverTheTurnsPart) {
  for (const fs::path& checkpoint : checkpoints()) {
    const LoadedModel loaded = load(checkpoint);
    const std::vector<TokenId> first = counting(53);
    for (const int64_t common : {0, 1, 15, 16, 30, 47, 48, 50, 52, 53}) {
      Sequence sequence(loaded);
      logits_of(sequence, prompt_of(first));
      std::vector<TokenId> second(first.begin(), first.begin() + common);
      for (const TokenId id : counting(9, 200)) second.push_back(id);
      const auto warm = logits_of(sequence, prompt_of(second));
      EXPECT_TRUE(test::all_close(warm, cold(loaded, prompt_of(second)), 1e-4)) << checkpoint << " " << common;
      EXPECT_EQ(sequence.length(), static_cast<int64_t>(second.size()));
      if (common >= 52) {
        EXPECT_EQ(sequence.reused_tokens(), common) << checkpoint;
      }
    }
  }
}

TEST(Sequence, TheSamePromptAgainGivesTheSameLogits) {
  const LoadedModel loaded = load(checkpoints().at(0));
  const Prompt prompt = prompt_of(counting(49));
  Sequence sequence(loaded);
  const auto once = logits_of(sequence, prompt);
  sequence.step(5);
  EXPECT_TRUE(test::all_close(logits_of(sequence, prompt), once, 1e-4));
  EXPECT_EQ(sequence.length(), 49);
}

Prompt image_prompt(const LoadedModel& loaded, uint64_t key, double shade) {
  const int64_t rows = loaded.config().vision->tokens_per_tile(), side = loaded.config().vision->image_size;
  Prompt prompt = prompt_of(counting(4));
  prompt.tokens.insert(prompt.tokens.end(), static_cast<size_t>(rows),
                       static_cast<TokenId>(loaded.config().image_token_id));
  for (const TokenId id : counting(5, 90)) prompt.tokens.push_back(id);
  prompt.features = loaded.model->encode_images(at::full({1, 3, side, side}, shade));
  prompt.image_keys = {key};
  prompt.image_rows = {rows};
  return prompt;
}

TEST(Sequence, WantedLogitsAfterAReusedPrefixAreThoseOfAColdRun) {
  for (const fs::path& checkpoint : checkpoints()) {
    const LoadedModel loaded = load(checkpoint);
    const Prompt prompt = prompt_of(counting(50));
    const auto collect = [&](Sequence& sequence, int64_t from, int64_t piece) {
      std::map<int64_t, std::vector<float>> rows;
      PrefillOptions options;
      options.logits_from = from;
      options.piece_tokens = piece;
      options.on_logits = [&](int64_t first, const at::Tensor& logits_TV) {
        for (int64_t row = 0; row < logits_TV.size(0); ++row) {
          const float* data = logits_TV[row].const_data_ptr<float>();
          rows[first + row].assign(data, data + logits_TV.size(1));
        }
      };
      sequence.prefill(prompt, options);
      return rows;
    };
    Sequence whole(loaded);
    const auto all = collect(whole, 0, 2048);
    ASSERT_EQ(all.size(), 50u);
    for (const int64_t from : {1, 17, 48, 49})
      for (const int64_t piece : {7, 2048}) {
        Sequence sequence(loaded);
        logits_of(sequence, prompt_of(counting(from + 1)));
        const auto wanted = collect(sequence, from, piece);
        EXPECT_EQ(sequence.reused_tokens(), from);
        ASSERT_EQ(wanted.size(), static_cast<size_t>(50 - from));
        for (const auto& [position, logits] : wanted)
          EXPECT_TRUE(test::all_close(logits, all.at(position), 1e-4)) << checkpoint << " " << from << " " << position;
      }
  }
}

TEST(Sequence, AnotherImageIsNeverTakenFromTheCache) {
  const LoadedModel loaded = load(checkpoints().at(0));
  const Prompt dark = image_prompt(loaded, 1, -1), light = image_prompt(loaded, 2, 1);
  Sequence sequence(loaded);
  const auto first = logits_of(sequence, dark);
  const auto second = logits_of(sequence, light);
  EXPECT_TRUE(test::all_close(second, cold(loaded, light), 1e-4));
  EXPECT_FALSE(test::all_close(second, first, 1e-2));
  EXPECT_TRUE(test::all_close(logits_of(sequence, light), second, 1e-4));
  EXPECT_GT(sequence.reused_tokens(), 4);
  for (const int64_t piece : {1, 3, 6}) {
    Sequence pieces(loaded);
    EXPECT_TRUE(test::all_close(logits_of(pieces, light, piece), second, 1e-4)) << piece;
  }
}

TEST(Sequence, CancelBetweenPiecesLeavesAPrefixThatIsReused) {
  const LoadedModel loaded = load(checkpoints().at(0));
  const Prompt prompt = prompt_of(counting(40));
  Sequence sequence(loaded);
  std::atomic<bool> cancel = false;
  PrefillOptions options;
  options.piece_tokens = 10;
  options.cancel = &cancel;
  options.on_progress = [&](int64_t done, int64_t) { cancel = done >= 20; };
  EXPECT_FALSE(sequence.prefill(prompt, options).has_value());
  EXPECT_EQ(sequence.length(), 20);
  EXPECT_TRUE(test::all_close(logits_of(sequence, prompt), cold(loaded, prompt), 1e-4));
  EXPECT_EQ(sequence.reused_tokens(), 20);
}

TEST(Sequence, RefusesAPromptBeyondTheContext) {
  const LoadedModel loaded = load(checkpoints().at(0));
  Sequence sequence(loaded);
  EXPECT_THROW(sequence.prefill(prompt_of(counting(loaded.config().text.max_position_embeddings + 1))), Error);
}

TEST(Sequence, ABadTokenIsAnErrorAndTheSequenceGoesOn) {
  const LoadedModel loaded = load(checkpoints().at(0));
  Sequence sequence(loaded);
  const Prompt good = prompt_of(counting(12));
  logits_of(sequence, good);
  EXPECT_THROW(logits_of(sequence, prompt_of({3, 10, 1 << 20})), Error);
  EXPECT_TRUE(test::all_close(logits_of(sequence, good), cold(loaded, good), 1e-4));
}

}  // namespace
}  // namespace puna::engine
