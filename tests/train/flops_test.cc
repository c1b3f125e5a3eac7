#include "train/flops.h"

#include <gtest/gtest.h>

#include "arch/counts.h"
#include "tests/train/support.h"

namespace puna::train {
namespace {

TEST(StepFlops, IsThreeForwardsOfEachTokenAtItsDepth) {
  arch::Llama4Config config = test::train_config();
  config.text.attention_chunk_size = 100;
  double forward = 0;
  const double head = 2.0 * static_cast<double>(config.text.hidden_size * config.text.vocab_size);
  for (const int64_t length : {7, 12, 9}) {
    for (int64_t seen = 1; seen <= length; ++seen) forward += arch::flops_per_token(config, seen);
    forward -= head;  // nothing follows the last token
  }
  EXPECT_NEAR(step_flops(config, test::random_batch({{7, 12}, {9}})), 3 * forward, 1e-9 * forward);
}

TEST(StepFlops, CountsNoKeyOfAnotherChunk) {
  arch::Llama4Config config = test::train_config();
  const StepBatch batch = test::random_batch({{12}});
  config.text.attention_chunk_size = 12;
  const double whole = step_flops(config, batch);
  config.text.attention_chunk_size = 5;
  // 12 tokens see 78 keys, in chunks of 5, 5 and 2 only 33; three of the four layers have chunks.
  const double width = static_cast<double>(config.text.num_attention_heads * config.text.head_dim);
  EXPECT_DOUBLE_EQ(whole - step_flops(config, batch), 3 * 4 * width * 3 * (78 - 33));
}

TEST(TileFlops, AsCountedByHand) {
  arch::Llama4Config config = test::train_config(true);
  config.text.hidden_size = 32;
  config.vision = arch::VisionConfig{.hidden_size = 8,
                                     .num_hidden_layers = 2,
                                     .num_attention_heads = 2,
                                     .intermediate_size = 16,
                                     .image_size = 28,
                                     .patch_size = 14,
                                     .vision_output_dim = 12};
  // 5 rows of 4 patches and the class: embedding 8 * 588 and two layers of 512 weights, two attentions of 4 * 8 * 25;
  // one token: 12 * 32, 12 * 12 and 32 * 12 weights.
  EXPECT_DOUBLE_EQ(tile_flops(config), 2 * (4704 + 2 * 512) * 5 + 2 * 4 * 8 * 25 + 2 * (384 + 144 + 384));
  StepBatch batch = test::random_batch({{12}});
  const double without = step_flops(config, batch);
  batch.num_tiles = 3;
  EXPECT_DOUBLE_EQ(step_flops(config, batch) - without, 3 * 3 * tile_flops(config));
}

}  // namespace
}  // namespace puna::train
