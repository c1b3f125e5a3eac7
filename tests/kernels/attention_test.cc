// Attention over the paged cache: each instruction set against sums that are known exactly and against the plain form,
// and a row against itself in other batches, pieces, blocks and threads, bit for bit.
#include "kernels/attention/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/parallel_for.h"
#include "kernels/attention/kernels.h"
#include "kernels/formats/floats.h"
#include "kernels/quantized/rounding.h"
#include "tests/kernels/paged_cache.h"

namespace puna::kernels {
namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

void serial(int64_t count, const std::function<void(int64_t)>& work) {
  for (int64_t i = 0; i < count; ++i) work(i);
}

void threaded(int64_t count, const std::function<void(int64_t)>& work) { parallel_for(count, 3, work); }

struct Kernels {
  std::string name;
  const AttentionKernels* kernels;
};

/// All but the plain form.
std::vector<Kernels> available() {
  std::vector<Kernels> all;
  if (isa_available(Isa::Avx2)) all.push_back({"avx2", avx2_attention_kernels()});
  if (!isa_available(Isa::Avx512Vnni)) return all;
  all.push_back({"avx512", avx512_attention_kernels()});
  if (attention_kernels(Isa::Avx512Vnni) != all.back().kernels)
    all.push_back({"avx512 with BF16 dots", attention_kernels(Isa::Avx512Vnni)});
  return all;
}

/// Queries at the last positions of a sequence, or any that `jobs` says.
struct Call {
  Sequence& sequence;
  int64_t query_heads;
  int64_t chunk = 0;
  float scale = 0.125f;

  int64_t row_size() const { return query_heads * sequence.shape.width; }

  std::vector<float> run(const AttentionKernels* kernels, const std::vector<AttentionJob>& jobs,
                         const std::vector<float>& queries, const ParallelFor& parallel = serial) const {
    std::vector<float> out(queries.size(), kNan);
    const AttentionProblem problem = {.shape = sequence.shape,
                                      .pool = sequence.pool(),
                                      .query_heads = query_heads,
                                      .chunk = chunk,
                                      .scale = scale,
                                      .jobs = jobs.data(),
                                      .num_jobs = static_cast<int64_t>(jobs.size()),
                                      .queries = queries.data(),
                                      .query_stride = row_size(),
                                      .out = out.data(),
                                      .out_stride = row_size()};
    Aligned workspace(attention_workspace_bytes(problem));
    attention_with(kernels, problem, workspace.get(), parallel);
    return out;
  }

  AttentionJob job(int64_t begin, int64_t count) const { return {sequence.table(), begin, count}; }

  /// Exact in BF16, so that a rounding of them changes nothing.
  std::vector<float> random_queries(int64_t rows, unsigned seed) const {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0, 1);
    std::vector<float> queries(rows * row_size());
    for (float& value : queries) value = bf16_to_float(bf16_from_float(normal(random)));
    return queries;
  }
};

float largest(const std::vector<float>& values) {
  float most = 0;
  for (float value : values) most = std::max(most, std::abs(value));
  return most;
}

/// NaN is a difference beyond any bound.
float most_different(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  float most = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const float difference = std::abs(a[i] - b[i]);
    if (!(difference <= most)) most = std::isnan(difference) ? std::numeric_limits<float>::infinity() : difference;
  }
  return most;
}

/// Of a result whose queries are BF16 numbers, as a part of the largest value: FP32 sums; weights rounded to BF16,
/// each to 2^-9; queries rounded to 1 / 254 of their largest, which a hundred of them share at random.
float tolerance(CacheType type) {
  return type == CacheType::Float32 ? 4e-6f : type == CacheType::Bfloat16 ? 2e-3f : 1e-2f;
}

bool same_bits(const float* a, const float* b, int64_t count) { return std::memcmp(a, b, count * sizeof(float)) == 0; }

// Keys of zero give every visible position the same weight, and sums of small integers are exact.
TEST(Attention, SeesItsChunkUpToItselfAndNothingElse) {
  for (CacheType type : kTypes) {
    for (int64_t chunk : {0, 10, 16, 24, 100}) {
      for (int64_t first : {0, 96}) {
        Sequence s({type, 2, 16, 32}, first, 300, 1);
        std::fill(s.keys.begin(), s.keys.end(), 0.0f);
        for (int64_t i = 0; i < 300 * 2 * 16; ++i) s.values[i] = i % 16 == 0 ? 127 : static_cast<float>(i * 7 % 11);
        s.write();
        const Call call = {s, 4, chunk};
        const std::vector<float> queries = call.random_queries(300, 2);
        for (const Kernels& k : available()) {
          const std::vector<float> out = call.run(k.kernels, {call.job(first, 300)}, queries);
          for (int64_t i = 0; i < 300 * 4 * 16; ++i) {
            const int64_t row = i / 64, position = first + row, head = i / 16 % 4 / 2;
            const int64_t lowest = std::max(first, chunk ? position / chunk * chunk : 0);
            float sum = 0;
            for (int64_t at = lowest; at <= position; ++at) sum += s.values[((at - first) * 2 + head) * 16 + i % 16];
            const float count = static_cast<float>(position - lowest + 1);
            ASSERT_NEAR(out[i], sum / count, sum / count * 1e-4f)
                << k.name << ", " << name_of(type) << ", chunk " << chunk << ", position " << position;
          }
        }
      }
    }
  }
}

TEST(Attention, PlainFormIsTheFormula) {
  Sequence s({CacheType::Float32, 2, 24, 16}, 16, 40, 3);
  const Call call = {s, 4, 20, 0.3f};
  const std::vector<float> queries = call.random_queries(40, 4);
  const std::vector<float> out = call.run(nullptr, {call.job(16, 40)}, queries);
  for (int64_t i = 0; i < 40 * 4 * 24; ++i) {
    const int64_t position = 16 + i / 96, head = i / 24 % 4, d = i % 24;
    double sum = 0, value = 0;
    for (int64_t at = std::max<int64_t>(16, position / 20 * 20); at <= position; ++at) {
      const int64_t row = ((at - 16) * 2 + head / 2) * 24;
      double dot = 0;
      for (int64_t j = 0; j < 24; ++j) dot += double(queries[i / 24 * 24 + j]) * s.keys[row + j];
      sum += std::exp(0.3f * dot);
      value += std::exp(0.3f * dot) * s.values[row + d];
    }
    ASSERT_NEAR(out[i], value / sum, 1e-6);
  }
}

struct Heads {
  int64_t query, kv, width;
};

TEST(Attention, EveryShapeIsCloseToThePlainForm) {
  for (CacheType type : kTypes) {
    for (const Heads& heads :
         {Heads{2, 2, 32}, {5, 1, 128}, {10, 2, 64}, {16, 2, 128}, {7, 1, 24}, {40, 1, 16}, {3, 1, 200}}) {
      for (int64_t length : {1, 15, 16, 17, 63, 65, 130}) {
        Sequence s({type, heads.kv, heads.width, 16}, 0, length, static_cast<unsigned>(length));
        for (int64_t chunk : {0, 24}) {
          const Call call = {s, heads.query, chunk, 1 / std::sqrt(static_cast<float>(heads.width))};
          const std::vector<float> queries = call.random_queries(length, 5);
          const std::vector<AttentionJob> jobs = {call.job(0, length)};
          const std::vector<float> expected = call.run(nullptr, jobs, queries);
          for (const Kernels& k : available()) {
            ASSERT_LE(most_different(call.run(k.kernels, jobs, queries), expected), tolerance(type) * largest(s.values))
                << k.name << ", " << name_of(type) << ", " << heads.query << " and " << heads.kv << " heads of "
                << heads.width << ", " << length << " positions, chunk " << chunk;
          }
        }
      }
    }
  }
}

TEST(Attention, LongContextsAreCloseToThePlainForm) {
  for (CacheType type : kTypes) {
    Sequence s({type, 1, 64, 16}, 0, 40'000, 6);
    for (int64_t chunk : {0, 8192}) {
      const Call call = {s, 2, chunk};
      const std::vector<float> queries = call.random_queries(9, 7);
      std::vector<AttentionJob> jobs;
      for (int64_t begin : {8191, 16'383, 24'575, 39'998}) jobs.push_back(call.job(begin, 2));
      jobs.push_back(call.job(511, 1));
      const std::vector<float> expected = call.run(nullptr, jobs, queries);
      for (const Kernels& k : available()) {
        ASSERT_LE(most_different(call.run(k.kernels, jobs, queries), expected), tolerance(type) * largest(expected))
            << k.name << ", " << name_of(type) << ", chunk " << chunk;
      }
    }
  }
}

/// Root of the mean square.
double magnitude(const std::vector<float>& a, const std::vector<float>& minus) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (double{a[i]} - minus[i]) * (double{a[i]} - minus[i]);
  return std::sqrt(sum / static_cast<double>(a.size()));
}

// The errors that the header states, for rows and queries of normal numbers.
TEST(Attention, NarrowCachesCostWhatTheHeaderSays) {
  Sequence exact({CacheType::Float32, 2, 128, 16}, 0, 600, 24);
  const Call call = {exact, 10, 0, 0.088f};
  std::vector<float> queries = call.random_queries(100, 25);
  for (float& value : queries) value *= 1.01f;  // no numbers of BF16
  const std::vector<float> expected = call.run(nullptr, {call.job(500, 100)}, queries);
  for (const auto& [type, bound] : {std::pair(CacheType::Bfloat16, 0.005), {CacheType::Int8, 0.02}}) {
    Sequence narrow({type, 2, 128, 16}, 0, 600, 24);
    const Call with = {narrow, 10, 0, 0.088f};
    for (const Kernels& k : available()) {
      const std::vector<float> out = with.run(k.kernels, {with.job(500, 100)}, queries);
      EXPECT_LT(magnitude(out, expected), bound * magnitude(expected, std::vector<float>(expected.size())))
          << k.name << ", " << name_of(type);
    }
  }
}

/// Rows of `positions`, one call for each piece.
std::vector<float> in_pieces(const Call& call, const AttentionKernels* kernels, int64_t begin, int64_t piece,
                             const std::vector<float>& queries) {
  std::vector<float> out;
  const int64_t rows = static_cast<int64_t>(queries.size()) / call.row_size();
  for (int64_t row = 0; row < rows; row += piece) {
    const int64_t count = std::min(piece, rows - row);
    const std::vector<float> part(queries.begin() + row * call.row_size(),
                                  queries.begin() + (row + count) * call.row_size());
    const std::vector<float> result = call.run(kernels, {call.job(begin + row, count)}, part);
    out.insert(out.end(), result.begin(), result.end());
  }
  return out;
}

TEST(Attention, ARowIsTheSameWholeInPiecesAloneAndOnThreads) {
  for (CacheType type : kTypes) {
    for (const Heads& heads : {Heads{10, 2, 128}, {3, 3, 24}, {16, 1, 64}}) {
      for (int64_t chunk : {0, 200}) {
        Sequence s({type, heads.kv, heads.width, 16}, 0, 700, 8);
        const Call call = {s, heads.query, chunk};
        const std::vector<float> queries = call.random_queries(700, 9);
        for (const Kernels& k : available()) {
          SCOPED_TRACE(k.name + ", " + name_of(type) + ", chunk " + std::to_string(chunk));
          const std::vector<float> whole = call.run(k.kernels, {call.job(0, 700)}, queries);
          for (int64_t piece : {1, 7, 100}) {
            const std::vector<float> pieces = in_pieces(call, k.kernels, 0, piece, queries);
            ASSERT_TRUE(same_bits(pieces.data(), whole.data(), static_cast<int64_t>(whole.size()))) << piece;
          }
          const std::vector<float> on_threads = call.run(k.kernels, {call.job(0, 700)}, queries, threaded);
          ASSERT_TRUE(same_bits(on_threads.data(), whole.data(), static_cast<int64_t>(whole.size())));
        }
      }
    }
  }
}

// Few rows: their splits are work items; many: they are not. Splits double at 16,384 positions.
TEST(Attention, SplitsDoNotDependOnTheBatch) {
  for (CacheType type : kTypes) {
    Sequence s({type, 1, 32, 32}, 0, 17'000, 10);
    const Call call = {s, 5};
    const int64_t begin = 16'300, rows = 150;
    const std::vector<float> queries = call.random_queries(rows, 11);
    for (const Kernels& k : available()) {
      const std::vector<float> whole = call.run(k.kernels, {call.job(begin, rows)}, queries, threaded);
      for (int64_t piece : {1, 11}) {
        const std::vector<float> pieces = in_pieces(call, k.kernels, begin, piece, queries);
        ASSERT_TRUE(same_bits(pieces.data(), whole.data(), static_cast<int64_t>(whole.size())))
            << k.name << ", " << name_of(type);
      }
      std::vector<AttentionJob> jobs;
      std::vector<float> batch;
      for (int64_t i = 0; i < 500; ++i) {  // more than 2,048 rows, and items enough
        const int64_t row = i * 7 % rows;
        jobs.push_back(call.job(begin + row, 1));
        batch.insert(batch.end(), queries.begin() + row * 160, queries.begin() + (row + 1) * 160);
      }
      const std::vector<float> out = call.run(k.kernels, jobs, batch);
      for (int64_t i = 0; i < 500; ++i)
        ASSERT_TRUE(same_bits(out.data() + i * 160, whole.data() + i * 7 % rows * 160, 160)) << k.name << " row " << i;
    }
  }
}

TEST(Attention, SharedBlocksAndOthersOfTheSameContentGiveTheSame) {
  for (CacheType type : kTypes) {
    Sequence s({type, 2, 64, 16}, 0, 330, 12), other({type, 2, 64, 16}, 0, 330, 13);
    other.keys = s.keys, other.values = s.values;
    other.write();
    ASSERT_NE(s.blocks, other.blocks);
    const Call call = {s, 10}, elsewhere = {other, 10};
    const std::vector<float> queries = call.random_queries(60, 14);
    for (const Kernels& k : available()) {
      const std::vector<float> whole = call.run(k.kernels, {call.job(270, 60)}, queries);
      const std::vector<float> moved = elsewhere.run(k.kernels, {elsewhere.job(270, 60)}, queries);
      ASSERT_TRUE(same_bits(moved.data(), whole.data(), static_cast<int64_t>(whole.size())));
      // Twice the same blocks in one call.
      std::vector<float> twice = queries;
      twice.insert(twice.end(), queries.begin(), queries.end());
      const std::vector<float> both = call.run(k.kernels, {call.job(270, 60), call.job(270, 60)}, twice);
      ASSERT_TRUE(same_bits(both.data(), whole.data(), static_cast<int64_t>(whole.size())));
      ASSERT_TRUE(same_bits(both.data() + whole.size(), whole.data(), static_cast<int64_t>(whole.size())));
    }
  }
}

// A chunked layer keeps the blocks from where the chunk begins: rounded down to a block.
TEST(Attention, TablesMayBeginAtTheChunk) {
  for (CacheType type : kTypes) {
    Sequence s({type, 2, 32, 16}, 0, 300, 15);
    const Call call = {s, 4, 100};
    const std::vector<float> queries = call.random_queries(80, 16);
    const AttentionJob later = {{s.blocks.data() + 12, 192}, 210, 80};
    for (const Kernels& k : available()) {
      const std::vector<float> whole = call.run(k.kernels, {call.job(210, 80)}, queries);
      const std::vector<float> of_chunk = call.run(k.kernels, {later}, queries);
      ASSERT_TRUE(same_bits(of_chunk.data(), whole.data(), static_cast<int64_t>(whole.size()))) << k.name;
    }
  }
}

TEST(Attention, TakesBf16SlicesOfWiderRowsAndGivesBf16) {
  Sequence s({CacheType::Bfloat16, 2, 32, 16}, 0, 50, 17);
  const Call call = {s, 6};
  const std::vector<float> queries = call.random_queries(50, 18);
  const int64_t stride = 300, out_stride = 222;
  std::vector<uint16_t> wide(50 * stride);
  for (int64_t i = 0; i < 50 * 192; ++i) wide[i / 192 * stride + 64 + i % 192] = bf16_from_float(queries[i]);
  const AttentionJob job = call.job(0, 50);
  for (const Kernels& k : available()) {
    const std::vector<float> expected = call.run(k.kernels, {job}, queries);
    std::vector<uint16_t> out(50 * out_stride, 0x1234);
    AttentionProblem problem = {.shape = s.shape,
                                .pool = s.pool(),
                                .query_heads = 6,
                                .scale = call.scale,
                                .jobs = &job,
                                .num_jobs = 1,
                                .queries = wide.data() + 64,
                                .query_stride = stride,
                                .queries_bf16 = true,
                                .out = out.data(),
                                .out_stride = out_stride,
                                .out_bf16 = true};
    Aligned workspace(attention_workspace_bytes(problem));
    attention_with(k.kernels, problem, workspace.get(), serial);
    for (int64_t i = 0; i < 50 * out_stride; ++i) {
      const int64_t d = i % out_stride;
      ASSERT_EQ(out[i], d < 192 ? bf16_from_float(expected[i / out_stride * 192 + d]) : uint16_t{0x1234}) << k.name;
    }
  }
}

TEST(Attention, HugeScoresAreNoNan) {
  for (CacheType type : kTypes) {
    for (float size : {1e4f, 1e15f, 1e18f, -1e18f, 3e18f}) {
      Sequence s({type, 1, 32, 16}, 0, 100, 19);
      for (int64_t i = 0; i < 100 * 32; ++i) s.keys[i] = static_cast<float>(1 + i / 32 % 7) * size;
      s.write();
      const Call call = {s, 2};
      const std::vector<float> queries(100 * 64, std::abs(size));
      const std::vector<AttentionJob> jobs = {call.job(0, 100)};
      const std::vector<float> expected = call.run(nullptr, jobs, queries);
      for (const Kernels& k : available()) {
        const std::vector<float> out = call.run(k.kernels, jobs, queries);
        ASSERT_LE(most_different(out, expected), (std::abs(size) > 2e18f ? 1 : 4e-3f) * largest(s.values))
            << k.name << ", " << name_of(type) << ", " << size;
      }
    }
  }
}

TEST(Attention, ANanReachesTheRowsThatSeeItAlone) {
  for (CacheType type : kTypes) {
    for (bool in_keys : {false, true}) {
      Sequence s({type, 1, 32, 16}, 0, 100, 20);
      (in_keys ? s.keys : s.values)[53 * 32 + 3] = kNan;
      s.write();
      const Call call = {s, 5, 60};
      std::vector<float> queries = call.random_queries(100, 21);
      queries[20 * 160 + 33] = kNan;  // of head 1
      for (const Kernels& k : available()) {
        const std::vector<float> out = call.run(k.kernels, {call.job(0, 100)}, queries);
        for (int64_t i = 0; i < 100 * 5; ++i) {
          const bool sees = (i / 5 >= 53 && i / 5 < 60) || i == 20 * 5 + 1;
          ASSERT_EQ(std::isnan(out[i * 32 + 3]), sees) << k.name << ", " << name_of(type) << ", row " << i / 5;
        }
      }
    }
  }
}

TEST(Attention, NoRowsIsNothing) {
  Sequence s({CacheType::Bfloat16, 1, 16, 16}, 0, 16, 22);
  const Call call = {s, 1};
  const ParallelFor never = [](int64_t, const std::function<void(int64_t)>&) { FAIL(); };
  for (const Kernels& k : available()) {
    call.run(k.kernels, {}, {}, never);
    call.run(k.kernels, {call.job(3, 0)}, {}, never);
  }
  call.run(nullptr, {}, {}, never);
}

TEST(Attention, RefusesWhatCannotBe) {
  Sequence s({CacheType::Bfloat16, 2, 16, 16}, 32, 16, 23);
  const Call call = {s, 2}, uneven = {s, 3};
  EXPECT_THROW(uneven.run(nullptr, {uneven.job(32, 1)}, uneven.random_queries(1, 1)), InternalError);
  EXPECT_THROW(call.run(nullptr, {call.job(31, 1)}, call.random_queries(1, 1)), InternalError);
  EXPECT_THROW(call.run(nullptr, {{{s.blocks.data(), 8}, 40, 1}}, call.random_queries(1, 1)), InternalError);
  EXPECT_THROW(cache_layout({CacheType::Int8, 1, 16, 24}), InternalError);
  EXPECT_THROW(cache_layout({CacheType::Int8, 1, 0, 16}), InternalError);
}

}  // namespace
}  // namespace puna::kernels
