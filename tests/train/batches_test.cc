// Steps of tokens: packing, targets, images, and that nothing but the sample number decides them.
#include "train/batches.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tests/data/support.h"
#include "tests/support/golden.h"
#include "tests/train/support.h"

namespace puna::train {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::vector<int64_t> numbers(const at::Tensor& tensor) {
  return {tensor.const_data_ptr<int64_t>(), tensor.const_data_ptr<int64_t>() + tensor.numel()};
}

class BatchesTest : public testing::Test {
 protected:
  std::shared_ptr<const data::Mixture> mixture(std::vector<data::Record> records, int64_t length = 64) {
    test::ListSource source(std::move(records));
    data::Encoding encoding = test::data_encoding();
    encoding.image_processor = test::train_images();
    const auto out = dir_.path() / std::to_string(made_++);
    data::build(source, encoding, {.out = out, .name = "test"});
    std::vector<data::MixtureSource> sources = {{"test", data::Dataset::open(out), 1, 0}};
    return std::make_shared<data::Mixture>(std::move(sources), 3, length);
  }
  std::shared_ptr<const data::Mixture> texts() {
    std::vector<data::Record> records;
    for (int i = 0; i < 12; ++i) records.push_back(test::document(std::string(3 + 5 * i % 40, 'a' + i)));
    return mixture(std::move(records));
  }

  test::TemporaryDirectory dir_;
  int made_ = 0;
};

void expect_equal(const StepBatch& a, const StepBatch& b) {
  EXPECT_EQ(a.next_sample, b.next_sample);
  EXPECT_EQ(a.documents, b.documents);
  ASSERT_EQ(a.micro.size(), b.micro.size());
  for (size_t i = 0; i < a.micro.size(); ++i) {
    EXPECT_TRUE(at::equal(a.micro[i].tokens, b.micro[i].tokens));
    EXPECT_TRUE(at::equal(a.micro[i].targets, b.micro[i].targets));
    EXPECT_EQ(a.micro[i].sequence_begin, b.micro[i].sequence_begin);
  }
}

TEST_F(BatchesTest, AreAPureFunctionOfTheFirstSample) {
  const auto data = texts();
  const BatchConfig config{.sequence_length = 64, .tokens = 128, .micro_tokens = 64};
  const StepBatch first = make_step_batch(*data, config, {}, 5);
  make_step_batch(*data, config, {}, 900);
  expect_equal(make_step_batch(*data, config, {}, 5), first);
}

TEST_F(BatchesTest, TheLoaderGivesTheSameFromWhereverItStarts) {
  const auto data = texts();
  const BatchConfig config{.sequence_length = 64, .tokens = 100};
  uint64_t next = 0;
  BatchLoader whole(data, config, {}, 0);
  for (int step = 0; step < 6; ++step) {
    BatchLoader fresh(data, config, {}, next);
    const StepBatch batch = whole.next(step < 5);
    expect_equal(fresh.next(step % 2 == 0), batch);
    expect_equal(make_step_batch(*data, config, {}, next), batch);
    EXPECT_GT(batch.next_sample, next);
    next = batch.next_sample;
  }
}

TEST_F(BatchesTest, LimitsHoldAndNoSampleIsLost) {
  const auto data = texts();
  for (const BatchConfig config : {BatchConfig{64, 64, 0}, BatchConfig{64, 200, 64}, BatchConfig{64, 1000, 128}}) {
    uint64_t next = 0;
    for (int step = 0; step < 10; ++step) {
      const StepBatch batch = make_step_batch(*data, config, {}, next);
      EXPECT_LE(batch.num_tokens, config.tokens);
      EXPECT_EQ(batch.documents.size(), batch.next_sample - next);
      int64_t tokens = 0, targets = 0;
      uint64_t samples = next;
      for (const MicroBatch& micro : batch.micro) {
        EXPECT_LE(micro.tokens.size(0), config.micro_tokens > 0 ? config.micro_tokens : config.tokens);
        tokens += micro.tokens.size(0);
        targets += micro.targets.size(0);
        for (size_t s = 0; s + 1 < micro.sequence_begin.size(); ++s, ++samples)
          EXPECT_EQ(micro.sequence_begin[s + 1] - micro.sequence_begin[s],
                    static_cast<int64_t>(data->at(samples).tokens.size()));
      }
      EXPECT_EQ(samples, batch.next_sample);
      EXPECT_EQ(tokens, batch.num_tokens);
      EXPECT_EQ(targets, batch.num_targets);
      EXPECT_GT(tokens + static_cast<int64_t>(data->at(batch.next_sample).tokens.size()), config.tokens) << "room left";
      next = batch.next_sample;
    }
  }
}

TEST_F(BatchesTest, TargetsAreTheNextTokensWithinADocument) {
  const auto data = mixture({test::document("abc"), test::document("de")});
  const StepBatch batch = make_step_batch(*data, {.sequence_length = 8, .tokens = 9}, {}, 0);
  ASSERT_EQ(batch.micro.size(), 1);
  const MicroBatch& micro = batch.micro[0];
  ASSERT_EQ(micro.sequence_begin.size(), 3);
  EXPECT_EQ(micro.tokens.size(0), 9);  // 3 + 2 letters, each between two special tokens
  EXPECT_EQ(micro.targets.size(0), 7) << "none from the end of one document to the start of the next";
  const auto tokens = numbers(micro.tokens), rows = numbers(micro.target_rows), targets = numbers(micro.targets);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(targets[i], tokens[rows[i] + 1]);
    EXPECT_NE(rows[i] + 1, micro.sequence_begin[1]);
    const int64_t begin = rows[i] < micro.sequence_begin[1] ? 0 : micro.sequence_begin[1];
    EXPECT_EQ(micro.target_position[i], rows[i] - begin);
  }
}

TEST_F(BatchesTest, OnlyWhatTheAssistantSaysIsATarget) {
  const auto chat = test::chat({{text::Role::kUser, {text::TextPart{"hello"}}, {}, false},
                                {text::Role::kAssistant, {text::TextPart{"XY"}}, {}, false}});
  const auto data = mixture({chat});
  const data::Sample sample = data->at(0);
  const auto length = static_cast<int64_t>(sample.tokens.size());
  const StepBatch batch = make_step_batch(*data, {.sequence_length = 64, .tokens = length}, {}, 0);
  const auto targets = numbers(batch.micro.at(0).targets);
  ASSERT_EQ(targets.size(), 3) << "X, Y and the end of the turn";
  EXPECT_EQ(targets[0], 'X');
  EXPECT_EQ(targets[1], 'Y');
  EXPECT_EQ(targets[2], test::data_tokenizer()->special("<|eot|>"));
  EXPECT_EQ(numbers(batch.micro[0].target_rows).back(), length - 2);
}

TEST_F(BatchesTest, ImagesGoToTheirDocuments) {
  std::vector<data::Record> records;
  for (int i = 0; i < 3; ++i)
    records.push_back(test::document_with_images({"", "x"}, {test::png(40, 40, static_cast<uint8_t>(60 + 60 * i))}));
  records.push_back(test::document("words alone"));
  const auto data = mixture(std::move(records));
  const BatchConfig config{.sequence_length = 64, .tokens = 64, .micro_tokens = 64};
  int with = 0, without = 0;
  uint64_t next = 0;
  for (int step = 0; step < 12; ++step) {
    const StepBatch batch = make_step_batch(*data, config, test::train_images(), next);
    std::vector<at::Tensor> expected;
    for (uint64_t n = next; n < batch.next_sample; ++n)
      for (const data::ImageView& image : data->at(n).images) {
        const auto shade = data->at(n).document * 60 + 60;
        expected.push_back(at::full({1}, (static_cast<double>(shade) / 255 - 0.5) / 0.5));
        EXPECT_EQ(image.tiles.num_tiles(), 1);
      }
    const at::Tensor& pixels = batch.micro.at(0).pixels;
    EXPECT_EQ(batch.num_images, static_cast<int64_t>(expected.size()));
    EXPECT_EQ(pixels.defined(), !expected.empty());
    ++(pixels.defined() ? with : without);
    next = batch.next_sample;
    if (!pixels.defined()) continue;
    ASSERT_EQ(pixels.size(0), static_cast<int64_t>(expected.size()));
    // One colour each: the middle of the tile tells whose it is.
    for (size_t i = 0; i < expected.size(); ++i)
      EXPECT_NEAR(pixels[i][0][8][8].item<double>(), expected[i].item<double>(), 0.02) << step << " " << i;
  }
  EXPECT_GT(with, 0);
}

TEST_F(BatchesTest, ABatchWithoutImagesHasNoPixels) {
  const auto data = texts();
  const StepBatch batch = make_step_batch(*data, {.sequence_length = 64, .tokens = 64}, test::train_images(), 0);
  EXPECT_FALSE(batch.micro.at(0).pixels.defined());
  EXPECT_EQ(batch.num_images, 0);
}

TEST_F(BatchesTest, DataThatRunOutAreAnErrorOfTheStepThatNeedsThem) {
  const auto endless = mixture({test::document("abc"), test::document("de")});
  std::vector<data::MixtureSource> sources = endless->sources();
  sources[0].max_epochs = 2;
  const auto data = std::make_shared<data::Mixture>(std::move(sources), 1, 8);
  BatchLoader loader(data, {.sequence_length = 8, .tokens = 9}, {}, 0);
  for (int step = 0; step < 2; ++step) EXPECT_EQ(loader.next(true).num_tokens, 9) << "whole without the lookahead";
  try {
    loader.next(false);
    FAIL() << "two epochs are two steps";
  } catch (const data::OutOfData& error) {
    EXPECT_THAT(error.what(), HasSubstr("test"));
  }
}

TEST_F(BatchesTest, NoOtherErrorIsTakenForTheEndOfTheData) {
  const BatchConfig config{.sequence_length = 64, .tokens = 128};
  EXPECT_THROW(make_step_batch(*texts(), config, {}, (uint64_t{1} << 62) - 1), Error);
  const auto pictures = mixture({test::document_with_images({"", "x"}, {test::png(40, 40, 60)})});
  media::ImageProcessorConfig other = test::train_images();
  other.tile_size /= 4;
  try {
    make_step_batch(*pictures, config, other, 0);
    FAIL() << "other tiles";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("image of test/0"));
  }
}

}  // namespace
}  // namespace puna::train
