// Properties of the forward: whole equals pieces, alone equals together, chunks, positions, memory, errors.
#include <fmt/format.h>

#include <cmath>
#include <random>

#include "base/error.h"
#include "tests/model/support.h"
#include "tests/support/golden.h"

namespace puna::test {
namespace {

constexpr double kSame = 1e-4;

std::vector<int64_t> random_split(int64_t total, std::mt19937& generator, int64_t largest) {
  std::vector<int64_t> sizes;
  for (int64_t left = total; left > 0; left -= sizes.back())
    sizes.push_back(std::uniform_int_distribution<int64_t>(1, std::min(left, largest))(generator));
  return sizes;
}

arch::Llama4Config with_chunk(int64_t chunk) {
  arch::Llama4Config config = small_config();
  config.text.attention_chunk_size = chunk;
  return config;
}

// Whole, token by token, and random pieces over at least three chunks: one computation (mlx-lm trimmed by padded
// length, Meta's reference forgets chunks when decoding).
TEST(Property, PiecesOfAnySizeEqualTheWhole) {
  std::mt19937 generator(1);
  for (const int64_t chunk : {1, 4, 5, 8}) {
    for (const int64_t experts : {1, 2}) {
      arch::Llama4Config config = with_chunk(chunk);
      config.text.num_experts_per_tok = experts;
      config.text.use_qk_norm = experts == 1;
      const auto model = random_model(config, chunk);
      const int64_t T = 4 * chunk + 6;
      const at::Tensor ids = random_ids(T, 90, chunk);
      const at::Tensor whole = model->forward(model::Batch::single(ids));
      EXPECT_TRUE(tensors_close(in_pieces(*model, ids, {T}), whole, kSame)) << "with a cache";
      EXPECT_TRUE(tensors_close(in_pieces(*model, ids, std::vector<int64_t>(T, 1)), whole, kSame)) << "token by token";
      for (int round = 0; round < 12; ++round) {
        const auto sizes = random_split(T, generator, round % 2 ? T : chunk + 1);
        EXPECT_TRUE(tensors_close(in_pieces(*model, ids, sizes), whole, kSame))
            << "chunk " << chunk << ", pieces " << testing::PrintToString(sizes);
      }
    }
  }
}

TEST(Property, ImagesMayStraddleChunkEdgesAndPieces) {
  std::mt19937 generator(2);
  const auto model = random_model(small_config(), 3);
  const int64_t image_token = model->config().image_token_id;
  const at::Tensor features = model->encode_images(at::randn({2, 3, 56, 56}));
  ASSERT_EQ(features.size(0), 8);
  at::Tensor ids = random_ids(24, 90, 6);
  ids.narrow(0, 3, 4).fill_(image_token);   // over the edge at 5
  ids.narrow(0, 13, 4).fill_(image_token);  // over the edge at 15
  model::Batch batch = model::Batch::single(ids);
  batch.image_features = features;
  const at::Tensor whole = model->forward(batch);
  batch.image_features = features.flip(0);
  EXPECT_GT((model->forward(batch) - whole).abs().max().item<double>(), 0.01) << "features are not used in order";
  EXPECT_TRUE(tensors_close(in_pieces(*model, ids, std::vector<int64_t>(24, 1), features), whole, kSame));
  for (int round = 0; round < 10; ++round)
    EXPECT_TRUE(tensors_close(in_pieces(*model, ids, random_split(24, generator, 9), features), whole, kSame));
}

// Chunks are disjoint, not a sliding window: the first token of a chunk sees itself alone.
TEST(Property, TheFirstTokenOfAChunkSeesOnlyItself) {
  const auto model = random_model(with_chunk(5), 4);
  const at::Tensor ids = random_ids(11, 90, 7), others = ids.clone();
  others.narrow(0, 0, 10).copy_(random_ids(10, 90, 8));
  model::Trace trace, changed;
  model->forward(model::Batch::single(ids), &trace);
  model->forward(model::Batch::single(others), &changed);
  const std::string name = "layers.0.attn_out";
  EXPECT_TRUE(tensors_close(trace.at(name)[10], changed.at(name)[10], 0)) << "position 10 looks before its chunk";
  EXPECT_FALSE(tensors_close(trace.at(name)[9], changed.at(name)[9], 1e-3)) << "position 9 does not look back";
  // Its output is its own value, projected.
  const at::Tensor v = trace.at("layers.0.v").select(1, 10).repeat_interleave(2, 0).flatten();
  const at::Tensor expected = at::mv(model->weights().at("model.layers.0.self_attn.o_proj.weight").dense, v);
  EXPECT_TRUE(tensors_close(trace.at("layers.0.attn_out")[10], expected, 1e-5));
}

TEST(Property, ReleasedChunkOf8192AtItsEdges) {
  for (const auto& dir : golden_directories("goldens")) {
    if (dir.filename() != "d_text") continue;
    const auto model = load_model(dir.parent_path().parent_path() / "ckpt/d_text");
    ASSERT_EQ(model->config().text.attention_chunk_size, 8192);
    const at::Tensor ids = random_ids(8196, 400, 9);
    model::Batch batch = model::Batch::single(ids);
    batch.output_rows = at::arange(8188, 8196, at::kLong);
    const at::Tensor whole = model->forward(batch);
    const at::Tensor pieces = in_pieces(*model, ids, {8188, 1, 1, 1, 1, 1, 1, 1, 1});
    EXPECT_TRUE(tensors_close(pieces.narrow(0, 8188, 8), whole, kSame));
    const at::Tensor over_the_edge = in_pieces(*model, ids, {3000, 5190, 6});
    EXPECT_TRUE(tensors_close(over_the_edge.narrow(0, 8188, 8), whole, kSame));
    return;
  }
  GTEST_SKIP() << "no golden set has d_text";
}

// The temperature is of position p + 1, on layers without rope only, and follows the config alone.
TEST(Property, TemperatureChangesOneTokenBeforeTheFloor) {
  arch::Llama4Config config = small_config();
  config.text.floor_scale = 4;
  config.text.attn_scale = 0.3;
  arch::Llama4Config plain = config;
  plain.text.attn_temperature_tuning = false;
  model::Trace tuned, untuned;
  const at::Tensor ids = random_ids(9, 90, 10);
  random_model(config, 6)->forward(model::Batch::single(ids), &tuned);
  random_model(plain, 6)->forward(model::Batch::single(ids), &untuned);
  for (int64_t p = 0; p < 9; ++p) {
    const double steps = p + 1 >= 8 ? 2 : p + 1 >= 4 ? 1 : 0;
    const at::Tensor expected = untuned.at("layers.3.q").select(1, p) * (1 + 0.3 * std::log(1 + steps));
    EXPECT_TRUE(tensors_close(tuned.at("layers.3.q").select(1, p), expected, 1e-5)) << p;
    for (int layer = 0; layer < 3; ++layer) {
      const std::string name = fmt::format("layers.{}.q", layer);
      EXPECT_TRUE(tensors_close(tuned.at(name), untuned.at(name), 0));
    }
  }
}

// Layers without rope see order only through the mask; and have neither rotation nor qk-norm.
TEST(Property, LayersWithoutRopeAreNeitherRotatedNorNormalised) {
  arch::Llama4Config config = small_config();
  config.text.attn_temperature_tuning = false;
  const auto model = random_model(config, 6);
  model::Trace trace;
  model->forward(model::Batch::single(random_ids(8, 90, 11)), &trace);
  const at::Tensor x = trace.at("layers.2.out");
  const at::Tensor unit = x * (x.square().mean(-1, true) + config.text.rms_norm_eps).rsqrt();
  const at::Tensor normed = unit * model->weights().at("model.layers.3.input_layernorm.weight").dense;
  const at::Tensor q = at::mm(normed, model->weights().at("model.layers.3.self_attn.q_proj.weight").dense.t());
  EXPECT_TRUE(tensors_close(trace.at("layers.3.q"), q.view({8, 4, 8}).permute({1, 0, 2}), 1e-5));
}

// qk-norm is per head; a model whose flag is off has none, whatever its number of experts.
TEST(Property, QkNormIsPerHeadAndFollowsTheFlag) {
  arch::Llama4Config config = small_config();
  for (const bool norm : {true, false}) {
    config.text.use_qk_norm = norm;
    model::Trace trace;
    random_model(config, 6)->forward(model::Batch::single(random_ids(6, 90, 12)), &trace);
    for (const char* name : {"layers.0.q", "layers.1.k"}) {
      const at::Tensor rms = trace.at(name).square().mean(-1).sqrt();
      const bool unit = ((rms - 1).abs() < 1e-3).all().item<bool>();
      EXPECT_EQ(unit, norm) << name;
    }
  }
}

TEST(Property, AloneEqualsTogetherAtDifferentLengths) {
  const auto model = random_model(small_config(), 8);
  const std::vector<int64_t> lengths = {1, 3, 5, 14, 9}, more = {4, 1, 7, 2, 12};
  std::vector<model::KvCache> caches(lengths.size(), {model->config().text, at::kFloat, at::kCPU});
  std::vector<at::Tensor> ids, expected, tails;
  model::Batch together;
  together.sequence_begin = {0};
  for (size_t i = 0; i < lengths.size(); ++i) {
    const int64_t total = lengths[i] + more[i];
    ids.push_back(random_ids(total, 90, 20 + i));
    expected.push_back(model->forward(model::Batch::single(ids[i])).narrow(0, lengths[i], more[i]));
    model::Batch head = model::Batch::single(ids[i].narrow(0, 0, lengths[i]));
    head.caches = {&caches[i]};
    model->forward(head);
    tails.push_back(ids[i].narrow(0, lengths[i], more[i]));
    together.sequence_begin.push_back(together.sequence_begin.back() + more[i]);
    together.first_position.push_back(lengths[i]);
    together.caches.push_back(&caches[i]);
  }
  together.tokens = at::cat(tails);
  EXPECT_TRUE(tensors_close(model->forward(together), at::cat(expected), kSame));
}

TEST(Property, TheSamePromptManyTimesInOneBatchGivesTheSameLogits) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const auto model = random_model(small_config(), 9, dtype);
    const at::Tensor ids = random_ids(13, 90, 13);
    model::Batch batch;
    batch.tokens = ids.repeat({4});
    batch.sequence_begin = {0, 13, 26, 39, 52};
    batch.first_position = {0, 0, 0, 0};
    const at::Tensor logits = model->forward(batch).to(at::kFloat).view({4, 13, -1});
    for (int64_t i = 1; i < 4; ++i) EXPECT_TRUE(tensors_close(logits[i], logits[0], dtype == at::kFloat ? 1e-5 : 1e-2));
  }
}

TEST(Property, OutputRowsAreRowsOfTheWhole) {
  const auto model = random_model(small_config(), 10);
  model::Batch batch = model::Batch::single(random_ids(9, 90, 14));
  const at::Tensor whole = model->forward(batch);
  batch.output_rows = at::tensor({8, 0, 8}, at::kLong);
  EXPECT_TRUE(tensors_close(model->forward(batch), whole.index_select(0, batch.output_rows), 1e-5));
}

int64_t bytes_after(const model::Model& model, int64_t length) {
  model::KvCache cache(model.config().text, at::kFloat, at::kCPU);
  EXPECT_EQ(cache.bytes(), 0);
  for (int64_t done = 0; done < length; done += 16) {
    model::Batch batch = model::Batch::single(random_ids(16, 90, done));
    batch.first_position = {done};
    batch.caches = {&cache};
    model.forward(batch);
  }
  EXPECT_EQ(cache.length(), length);
  return cache.bytes();
}

TEST(Property, ChunkedLayersHoldOneChunkWhateverTheContext) {
  arch::Llama4Config config = with_chunk(32);
  config.text.uses_rope = {1, 1, 1, 1};
  const auto chunked = random_model(config, 11);
  const int64_t layer_bytes_per_token = 2 * 2 * 8 * 4;  // keys and values, G, K, fp32
  EXPECT_EQ(bytes_after(*chunked, 32), 4 * 32 * layer_bytes_per_token);
  EXPECT_EQ(bytes_after(*chunked, 640), 4 * 32 * layer_bytes_per_token);
  const auto mixed = random_model(with_chunk(32), 11);
  const int64_t global = bytes_after(*mixed, 640) - 3 * 32 * layer_bytes_per_token;
  EXPECT_GE(global, 640 * layer_bytes_per_token);
  EXPECT_LE(global, 2 * 640 * layer_bytes_per_token);
}

TEST(Property, NothingIsSizedByTheMaximumContext) {
  arch::Llama4Config config = small_config();
  const at::Tensor ids = random_ids(20, 90, 15);
  const at::Tensor expected = random_model(config, 12)->forward(model::Batch::single(ids));
  config.text.max_position_embeddings = int64_t{1} << 50;
  EXPECT_TRUE(tensors_close(random_model(config, 12)->forward(model::Batch::single(ids)), expected, 0));
}

// Rotation tables at ten million positions: scores depend on distances within the chunk alone.
TEST(Property, TenMillionPositionsAreAsExactAsTheFirstChunk) {
  arch::Llama4Config config = with_chunk(16);
  config.text.uses_rope = {1, 1, 1, 1};
  const auto model = random_model(config, 13);
  model::Batch batch = model::Batch::single(random_ids(16, 90, 16));
  const at::Tensor first = model->forward(batch);
  batch.first_position = {16 * 625'000};
  EXPECT_TRUE(tensors_close(model->forward(batch), first, kSame));
}

TEST(Property, TruncateGoesBackWithinTheChunk) {
  const auto model = random_model(with_chunk(5), 14);
  const at::Tensor ids = random_ids(18, 90, 17);
  const at::Tensor whole = model->forward(model::Batch::single(ids));
  model::KvCache cache(model->config().text, at::kFloat, at::kCPU);
  const auto feed = [&](const at::Tensor& tokens) {
    model::Batch batch = model::Batch::single(tokens);
    batch.first_position = {cache.length()};
    batch.caches = {&cache};
    return model->forward(batch);
  };
  feed(ids.narrow(0, 0, 12));
  feed(random_ids(2, 90, 18));
  EXPECT_EQ(cache.earliest_length(), 10);
  EXPECT_THROW(cache.truncate(9), Error);
  EXPECT_THROW(cache.truncate(15), Error);
  EXPECT_EQ(cache.length(), 14) << "a refused truncate changed the cache";
  cache.truncate(11);
  EXPECT_TRUE(tensors_close(feed(ids.narrow(0, 11, 7)), whole.narrow(0, 11, 7), kSame));
  cache.truncate(15);
  EXPECT_TRUE(tensors_close(feed(ids.narrow(0, 15, 3)), whole.narrow(0, 15, 3), kSame));
  cache.truncate(0);
  EXPECT_TRUE(tensors_close(feed(ids.narrow(0, 0, 10)), whole.narrow(0, 0, 10), kSame));
  EXPECT_EQ(cache.earliest_length(), 5) << "a full chunk is kept until the next one begins";
  cache.truncate(8);
  EXPECT_TRUE(tensors_close(feed(ids.narrow(0, 8, 10)), whole.narrow(0, 8, 10), kSame));
}

template <typename Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Property, ErrorsSayWhatIsWrong) {
  const auto model = random_model(small_config(), 15);
  using testing::HasSubstr;
  model::Batch batch = model::Batch::single(at::tensor({1, 96, 2}, at::kLong));
  EXPECT_THAT(error_of([&] { model->forward(batch); }), testing::AllOf(HasSubstr("96"), HasSubstr("vocabulary")));
  batch.tokens = at::tensor({1, -1, 2}, at::kLong);
  EXPECT_THAT(error_of([&] { model->forward(batch); }), HasSubstr("-1"));
  batch.tokens = at::tensor({95, 95, 2}, at::kLong);
  EXPECT_EQ(model->forward(batch).size(0), 3) << "a sampled <|patch|> is a token like any other";
  batch.image_features = at::zeros({5, 32});
  EXPECT_THAT(error_of([&] { model->forward(batch); }), testing::AllOf(HasSubstr("2 <|patch|>"), HasSubstr("5 image")));
  EXPECT_THAT(error_of([&] { model->encode_images(at::zeros({1, 3, 56, 55})); }), HasSubstr("56"));
  EXPECT_EQ(model->encode_images(at::zeros({0, 3, 56, 56})).sizes(), at::IntArrayRef({0, 32}));
  arch::Llama4Config text_only = small_config();
  text_only.vision.reset();
  EXPECT_THAT(error_of([&] {
                random_model(text_only)->encode_images(at::zeros({1, 3, 56, 56}));
              }),
              HasSubstr("no vision"));
}

TEST(Property, TilesDoNotAttendToEachOther) {
  const auto model = random_model(small_config(), 16);
  const at::Tensor tiles = at::randn({6, 3, 56, 56});
  const at::Tensor together = model->encode_images(tiles);
  for (int64_t i = 0; i < 6; ++i)
    EXPECT_TRUE(tensors_close(model->encode_images(tiles.narrow(0, i, 1)), together.narrow(0, 4 * i, 4), 1e-5));
}

TEST(Property, CudaIsAnErrorWhereThereIsNone) {
  if (at::hasCUDA()) GTEST_SKIP() << "this machine has CUDA";
  const auto& dirs = golden_directories("ckpt");
  ASSERT_FALSE(dirs.empty());
  const auto source = checkpoint::open_model(dirs.front());
  EXPECT_THAT(error_of([&] { model::Model::load(*source, {.dtype = at::kFloat, .device = at::kCUDA}); }),
              testing::HasSubstr("CUDA"));
}

}  // namespace
}  // namespace puna::test
