// A vision encoder that learns alone before a text model that stays as it is, then both.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "io/file.h"
#include "tests/support/golden.h"
#include "tests/train/tiny_text.h"
#include "train/checkpoint.h"
#include "train/trainer.h"

namespace puna::train {
namespace {

const std::string kVisionFirst = R"(
threads = 1
[model]
vocab_size = 290
[model.config.text_config]
)" + test::kTinyText + R"(max_position_embeddings = 512
[model.config.vision_config]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 64
image_size = 64
patch_size = 16
vision_output_dim = 32
pixel_shuffle_ratio = 0.5
[batch]
tokens = 256
sequence_length = 256
[checkpoint]
every = 1
keep_last = 0
[[source]]
name = "pictures"
generate = "pictures"
documents = 20
[[stage]]
name = "alone"
steps = 3
freeze = ["text"]
[[stage]]
name = "jointly"
steps = 3
)";

TEST(VisionStages, AloneThenBothAndGoingOnInEither) {
  const test::TemporaryDirectory dir;
  Recipe recipe = parse_recipe(kVisionFirst, "recipe", dir.path());
  recipe.out = (dir.path() / "whole").string();
  EXPECT_EQ(train(recipe, {}), Outcome::kFinished);
  const auto weights = [&](const std::string& out, int step) {
    std::map<std::string, at::Tensor> found;
    for (auto& [name, tensor] : load_checkpoint(dir.path() / out / fmt::format("checkpoints/step-{:08}", step)).tensors)
      if (name.starts_with("weights/")) found[name] = tensor;
    return found;
  };
  const auto is_vision = [](const std::string& name) {
    return name.find("vision_model.") != name.npos || name.find("multi_modal_projector.") != name.npos;
  };
  const auto first = weights("whole", 1), last_alone = weights("whole", 3), last = weights("whole", 6);
  int text_moved = 0, vision_moved = 0;
  for (const auto& [name, tensor] : first) {
    const bool same = at::equal(tensor, last_alone.at(name));
    if (is_vision(name))
      vision_moved += !same;
    else
      EXPECT_TRUE(same) << name;
    text_moved += !is_vision(name) && !at::equal(tensor, last.at(name));
  }
  EXPECT_GT(vision_moved, 10);
  EXPECT_GT(text_moved, 10);

  recipe.out = (dir.path() / "run").string();
  TrainOptions options;
  options.stop_after = 2;
  EXPECT_EQ(train(recipe, options), Outcome::kInterrupted);
  options.resume = true;
  options.stop_after = 3;
  EXPECT_EQ(train(recipe, options), Outcome::kInterrupted);
  options.stop_after = 0;
  EXPECT_EQ(train(recipe, options), Outcome::kFinished);
  const auto metrics = [&](const char* out) { return io::read_file(dir.path() / out / "metrics.jsonl", 1 << 20); };
  EXPECT_EQ(metrics("run"), metrics("whole"));
  for (const auto& [name, tensor] : weights("run", 6)) EXPECT_TRUE(at::equal(tensor, last.at(name))) << name;
}

}  // namespace
}  // namespace puna::train
