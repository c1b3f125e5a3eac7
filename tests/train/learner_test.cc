// The optimizer step in FP64: packing, accumulation and ranks change nothing; what is not finite stops it.
#include "train/learner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "io/image.h"
#include "ops/loss.h"
#include "tests/data/support.h"
#include "tests/model/support.h"
#include "tests/support/golden.h"
#include "tests/train/support.h"

namespace puna::train {
namespace {

using test::copies;
using test::greatest_difference;
using test::make_learner;
using test::plain_stage;
using test::random_batch;
using test::rearranged;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr double kEqual = 1e-12;

StageConfig full_stage() {
  StageConfig stage = plain_stage();
  stage.optimizer.weight_decay = 0.1;
  stage.optimizer.clip_norm = 0.5;
  stage.optimizer.epsilon = 1e-3;  // so that a tiny gradient's rounding is not blown up to a whole step
  stage.balance.bias_rate = 0.01;
  stage.balance.router_z_weight = 0.01;
  return stage;
}

TEST(Learner, DocumentsPackedTogetherNeverSeeEachOther) {
  const StepBatch packed = random_batch({{9, 14, 6}});
  const auto learner = make_learner(plain_stage());
  double nll = 0;
  for (size_t s = 0; s < 3; ++s) {
    const int64_t begin = packed.micro[0].sequence_begin[s], end = packed.micro[0].sequence_begin[s + 1];
    const auto alone = make_learner(plain_stage());
    const at::Tensor tokens = packed.micro[0].tokens.narrow(0, begin, end - begin);
    const double loss =
        ops::cross_entropy(alone->model().forward(model::Batch::single(tokens)), ops::shifted_targets(tokens))
            .item<double>();
    nll += loss * static_cast<double>(end - begin - 1);
  }
  EXPECT_NEAR(learner->step(packed, 1e-3, 1, 1).loss, nll / 26, kEqual);
}

TEST(Learner, MicroBatchesGiveTheSameStepAsTheWhole) {
  const StepBatch whole = random_batch({{9, 14, 6, 11, 4}});
  for (const auto& parts : std::vector<std::vector<int64_t>>{{1, 4}, {2, 2, 1}, {1, 1, 1, 1, 1}}) {
    const StepBatch split = rearranged(whole, parts);
    const auto a = make_learner(full_stage()), b = make_learner(full_stage());
    for (int64_t step = 1; step <= 3; ++step) {
      const StepResult one = a->step(whole, 1e-2, 1, step), many = b->step(split, 1e-2, 1, step);
      EXPECT_NEAR(one.loss, many.loss, kEqual);
      EXPECT_NEAR(one.grad_norm, many.grad_norm, kEqual);
      EXPECT_NEAR(one.auxiliary_loss, many.auxiliary_loss, kEqual);
    }
    EXPECT_LE(greatest_difference(a->masters(), b->masters()), kEqual);
  }
}

// The gradient read back through AdamW's first moment, against autograd through the plain forward.
TEST(Learner, GradientsAreThoseOfTheMeanLoss) {
  const StepBatch batch = random_batch({{12}, {7, 5}});
  const auto learner = make_learner(plain_stage());
  const auto plain = make_learner(plain_stage());
  at::Tensor nll = at::zeros({}, at::kDouble);
  for (const MicroBatch& micro : batch.micro)
    for (size_t s = 0; s + 1 < micro.sequence_begin.size(); ++s) {
      const int64_t begin = micro.sequence_begin[s], length = micro.sequence_begin[s + 1] - begin;
      const at::Tensor tokens = micro.tokens.narrow(0, begin, length);
      const at::Tensor logits = plain->model().forward(model::Batch::single(tokens)).narrow(0, 0, length - 1);
      nll = nll - logits.log_softmax(1).gather(1, tokens.narrow(0, 1, length - 1).unsqueeze(1)).sum();
    }
  (nll / static_cast<double>(batch.num_targets)).backward();
  learner->step(batch, 1e-3, 1, 1);
  for (const auto& [name, parameter] : learner->optimizer().parameters()) {
    const at::Tensor& expected = plain->model().weights().at(name).dense.grad();
    ASSERT_TRUE(expected.defined()) << name;
    EXPECT_LE((parameter.m / 0.1 - expected).abs().max().item<double>(), kEqual) << name;
  }
}

TEST(Learner, RecomputationChangesNothing) {
  const StepBatch batch = random_batch({{9, 14}, {6}});
  const auto a = make_learner(full_stage()), b = make_learner(full_stage(), at::kDouble, /*recompute=*/true);
  for (int64_t step = 1; step <= 2; ++step)
    EXPECT_EQ(a->step(batch, 1e-2, 1, step).loss, b->step(batch, 1e-2, 1, step).loss);
  EXPECT_EQ(greatest_difference(a->masters(), b->masters()), 0);
}

// Every tile another: a picture in the wrong place, or tiles in another order, change loss and gradient.
std::string picture(int width, int height, int seed) {
  io::Image image{width, height, {}};
  for (int i = 0; i < width * height * 3; ++i)
    image.rgb.push_back(static_cast<uint8_t>((i / 50 * 37 + seed * 91) % 251));
  const auto bytes = io::encode_png(image);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(Learner, PicturesOfPackedDocumentsStayWithTheirOwn) {
  const test::TemporaryDirectory dir;
  std::vector<data::Record> records;
  records.push_back(test::document_with_images({"a ", " b ", " c"}, {picture(112, 56, 1), picture(112, 112, 2)}));
  records.push_back(test::document("no picture here"));
  records.push_back(test::document_with_images({"", " d ", " e ", "f"},
                                               {picture(56, 112, 3), picture(56, 56, 4), picture(168, 56, 5)}));
  records.push_back(test::document_with_images({"g", ""}, {picture(112, 112, 6)}));
  const data::Mixture mixture({{"test", test::records_dataset(dir.path() / "d", records), 1, 0}}, 3, 512);
  const media::ImageProcessorConfig images = test::train_images();
  const StageConfig stage = plain_stage();
  std::vector<StepBatch> alone;
  int64_t tokens = 0, targets = 0, tiles = 0;
  for (uint64_t n = 0; n < records.size(); ++n) {
    alone.push_back(make_step_batch(mixture, {.sequence_length = 512, .tokens = 1}, images, n));
    tokens += alone.back().num_tokens;
    targets += alone.back().num_targets;
    tiles += alone.back().num_tiles;
  }
  const StepBatch packed = make_step_batch(mixture, {.sequence_length = 512, .tokens = tokens}, images, 0);
  ASSERT_EQ(packed.micro.size(), 1);
  ASSERT_EQ(packed.micro[0].sequence_begin.size(), records.size() + 1);
  ASSERT_EQ(packed.num_images, 6);
  ASSERT_EQ(packed.num_tiles, tiles);
  ASSERT_GT(tiles, 2 * packed.num_images) << "several tiles each";

  const auto learner = make_learner(stage, at::kDouble, false, /*vision=*/true);
  const double loss = learner->step(packed, 1e-3, 1, 1).loss;
  double expected_loss = 0;
  std::map<std::string, at::Tensor> expected;
  for (const StepBatch& batch : alone) {
    const auto one = make_learner(stage, at::kDouble, false, /*vision=*/true);
    const double share = static_cast<double>(batch.num_targets) / static_cast<double>(targets);
    expected_loss += share * one->step(batch, 1e-3, 1, 1).loss;
    for (const auto& [name, parameter] : one->optimizer().parameters()) {
      at::Tensor& sum = expected[name];
      sum = sum.defined() ? sum + parameter.m * share : parameter.m * share;
    }
  }
  EXPECT_NEAR(loss, expected_loss, kEqual);
  for (const auto& [name, parameter] : learner->optimizer().parameters()) {
    const double size = std::max(1.0, expected.at(name).abs().max().item<double>());
    EXPECT_LE((parameter.m - expected.at(name)).abs().max().item<double>(), kEqual * size) << name;
  }
  EXPECT_GT(learner->optimizer().parameters().at("vision_model.class_embedding").m.abs().max().item<double>(), 0);
}

TEST(Learner, ClippingScalesTheWholeGradient) {
  const StepBatch batch = random_batch({{20}});
  StageConfig stage = plain_stage();
  const auto free = make_learner(stage);
  const double norm = free->step(batch, 1e-3, 1, 1).grad_norm;
  stage.optimizer.clip_norm = norm / 4;
  const auto clipped = make_learner(stage);
  EXPECT_NEAR(clipped->step(batch, 1e-3, 1, 1).grad_norm, norm, kEqual) << "told before clipping";
  for (const auto& [name, parameter] : clipped->optimizer().parameters())
    EXPECT_LE((parameter.m * 4 - free->optimizer().parameters().at(name).m).abs().max().item<double>(), kEqual) << name;
  stage.optimizer.clip_norm = norm * 4;
  const auto loose = make_learner(stage);
  loose->step(batch, 1e-3, 1, 1);
  EXPECT_EQ(greatest_difference(loose->masters(), free->masters()), 0);
}

TEST(Learner, FrozenPartsStayAsTheyAre) {
  for (const char* part : {"vision", "text", "router", "embedding"}) {
    StageConfig stage = full_stage();
    stage.freeze = {part};
    const auto learner = make_learner(stage, at::kFloat, false, /*vision=*/true);
    const auto before = copies(learner->masters());
    StepBatch batch = random_batch({{9, 14}});
    MicroBatch& micro = batch.micro[0];
    micro.tokens.narrow(0, 2, 4).fill_(learner->model().config().image_token_id);
    micro.pixels = at::ones({1, 3, 56, 56}).to(at::kBFloat16);
    learner->step(batch, 1e-2, 1, 1);
    int moved = 0;
    for (const arch::ParamRow& row : arch::parameter_table(learner->model().config())) {
      using arch::ParamKind;
      const bool vision = row.kind == ParamKind::kVision || row.kind == ParamKind::kProjector;
      const std::string name = part;
      const bool frozen = name == "vision"   ? vision
                          : name == "text"   ? !vision
                          : name == "router" ? row.kind == ParamKind::kRouter
                                             : row.kind == ParamKind::kEmbedding;
      const bool same = at::equal(learner->masters().at(row.name), before.at(row.name));
      if (frozen) {
        EXPECT_TRUE(same) << part << " " << row.name;
      }
      moved += !same;
    }
    EXPECT_GT(moved, 10) << part;
  }
}

TEST(Learner, VisionWithoutImagesIsLeftAlone) {
  StageConfig stage = full_stage();
  const auto learner = make_learner(stage, at::kFloat, false, /*vision=*/true);
  const auto before = copies(learner->masters());
  learner->step(random_batch({{9, 14}}), 1e-2, 1, 1);
  for (const auto& [name, tensor] : before) {
    const bool vision = name.starts_with("vision_model.") || name.starts_with("multi_modal");
    EXPECT_EQ(at::equal(learner->masters().at(name), tensor), vision) << name;
    if (vision) {
      EXPECT_EQ(learner->optimizer().parameters().at(name).steps, 0) << name;
    }
  }
}

TEST(Learner, Bfloat16KeepsFp32Masters) {
  const StepBatch batch = random_batch({{9, 14}, {6}});
  const auto narrow = make_learner(plain_stage(), at::kBFloat16), wide = make_learner(plain_stage(), at::kFloat);
  const auto before = copies(narrow->masters());
  const double a = narrow->step(batch, 1e-5, 1, 1).loss, b = wide->step(batch, 1e-5, 1, 1).loss;
  EXPECT_NEAR(a, b, 0.05 * b);
  int smaller = 0;
  for (const auto& [name, master] : narrow->masters()) {
    ASSERT_EQ(master.scalar_type(), at::kFloat);
    const at::Tensor rounded = master.to(at::kBFloat16);
    EXPECT_TRUE(at::equal(narrow->model().weights().at(name).dense, rounded)) << name;
    smaller += at::equal(rounded, before.at(name).to(at::kBFloat16)) && !at::equal(master, before.at(name));
  }
  EXPECT_GT(smaller, 0) << "steps too small for bf16 add up in the masters";
}

std::string not_finite(Learner& learner, const StepBatch& batch, int64_t step) {
  const auto before = copies(learner.masters());
  std::map<std::string, at::Tensor> moments;
  for (const auto& [name, parameter] : learner.optimizer().parameters()) moments[name] = parameter.m.clone();
  try {
    learner.step(batch, 1e-2, 1, step);
  } catch (const NotFinite& error) {
    for (const auto& [name, tensor] : before)
      EXPECT_TRUE(at::allclose(learner.masters().at(name), tensor, 0, 0, /*equal_nan=*/true)) << name;
    for (const auto& [name, m] : moments) EXPECT_TRUE(at::equal(learner.optimizer().parameters().at(name).m, m));
    return error.what();
  }
  return "went on";
}

TEST(NotFinite, NamesStepWeightAndDocuments) {
  const auto learner = make_learner(full_stage());
  const StepBatch batch = random_batch({{9, 14}, {6}});
  learner->step(batch, 1e-2, 1, 1);
  learner->masters().at("model.layers.1.self_attn.k_proj.weight").detach()[3][2] = NAN;
  EXPECT_THAT(not_finite(*learner, batch, 41),
              AllOf(HasSubstr("step 41"), HasSubstr("weight 'model.layers.1.self_attn.k_proj.weight'"),
                    HasSubstr("test/0, test/1, test/2"), HasSubstr("nothing was updated")));
}

TEST(NotFinite, NamesTheFirstActivation) {
  const auto learner = make_learner(full_stage(), at::kFloat);
  const StepBatch batch = random_batch({{9, 14}, {6}});
  learner->masters().at("model.layers.2.self_attn.v_proj.weight").detach().fill_(3e38f);
  EXPECT_THAT(not_finite(*learner, batch, 7),
              AllOf(HasSubstr("step 7"), HasSubstr("activation 'layers.2.v' of micro-batch 0")));
}

TEST(NotFinite, NamesTheVisionModelsOwnActivation) {
  const auto learner = make_learner(full_stage(), at::kFloat, false, /*vision=*/true);
  StepBatch batch = random_batch({{9, 14}});
  batch.micro[0].tokens.narrow(0, 2, 4).fill_(learner->model().config().image_token_id);
  batch.micro[0].pixels = at::ones({1, 3, 56, 56}).to(at::kBFloat16);
  learner->masters().at("vision_model.model.layers.1.mlp.fc1.weight").detach().fill_(3e38f);
  EXPECT_THAT(not_finite(*learner, batch, 7), HasSubstr("activation 'vision_model.layers.1.out' of micro-batch 0"));
}

TEST(NotFinite, NamesAFewDocumentsAndCountsTheOthers) {
  const auto learner = make_learner(full_stage());
  const StepBatch batch = random_batch({std::vector<int64_t>(15, 5)});
  learner->masters().at("lm_head.weight").detach()[1][1] = NAN;
  EXPECT_THAT(not_finite(*learner, batch, 2), AllOf(HasSubstr("test/11, 3 more."), Not(HasSubstr("test/12"))));
}

// A test double of two ranks: what the other rank would have brought is recorded first, then added.
struct Exchange {
  std::vector<at::Tensor> sent;
  size_t next = 0;
};

class PairComm : public parallel::Comm {
 public:
  PairComm(int rank, Exchange& mine, Exchange* other) : rank_(rank), mine_(mine), other_(other) {}
  int rank() const override { return rank_; }
  int size() const override { return 2; }
  void all_reduce_sum(at::Tensor& tensor) override {
    const c10::NoGradGuard no_grad;
    mine_.sent.push_back(tensor.clone());
    if (other_ != nullptr)
      tensor.add_(other_->sent.at(other_->next++));
    else if (tensor.scalar_type() == at::kLong)
      tensor.fill_(1);  // the other rank has a gradient of everything
  }

 private:
  int rank_;
  Exchange& mine_;
  Exchange* other_;
};

void expect_equal(const StepResult& a, const StepResult& b) {
  EXPECT_NEAR(a.loss, b.loss, kEqual);
  EXPECT_NEAR(a.grad_norm, b.grad_norm, kEqual);
  EXPECT_NEAR(a.auxiliary_loss, b.auxiliary_loss, kEqual);
  ASSERT_EQ(a.by_position.size(), b.by_position.size());
  for (size_t i = 0; i < a.by_position.size(); ++i) EXPECT_EQ(a.by_position[i].targets, b.by_position[i].targets);
  ASSERT_EQ(a.routing.size(), b.routing.size());
  for (size_t i = 0; i < a.routing.size(); ++i) {
    EXPECT_EQ(a.routing[i].expert_rows, b.routing[i].expert_rows) << i;
    EXPECT_EQ(a.routing[i].tokens, b.routing[i].tokens) << i;
    EXPECT_NEAR(a.routing[i].entropy_sum, b.routing[i].entropy_sum, kEqual) << i;
  }
}

// Two ranks that each do half of the micro-batches take the step of one process that does all.
TEST(Ranks, TwoHalvesAreTheWholeStep) {
  for (const auto& parts : std::vector<std::vector<int64_t>>{{2, 2}, {1, 2, 1}, {4}}) {
    const StepBatch batch = rearranged(random_batch({{9, 14, 6, 11}}), parts);
    const auto alone = make_learner(full_stage());
    Exchange first, second, unused;
    const auto listening =
        make_learner(full_stage(), at::kDouble, false, false, std::make_unique<PairComm>(1, second, nullptr));
    const auto rank0 =
        make_learner(full_stage(), at::kDouble, false, false, std::make_unique<PairComm>(0, first, &second));
    listening->step(batch, 1e-2, 1, 1);  // alone it steps by its own half; what it sent is what counts
    const StepResult sum = rank0->step(batch, 1e-2, 1, 1), one = alone->step(batch, 1e-2, 1, 1);
    EXPECT_EQ(second.next, second.sent.size()) << "both ranks call the same collectives";
    expect_equal(sum, one);
    EXPECT_LE(greatest_difference(rank0->masters(), alone->masters()), kEqual);
    for (const auto& [layer, bias] : alone->selection_bias())
      EXPECT_TRUE(at::equal(bias, rank0->selection_bias().at(layer))) << layer;
  }
}

}  // namespace
}  // namespace puna::train
