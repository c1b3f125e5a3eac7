// Times attention over the paged cache beside the machine's own limits, measured between the repetitions:
//   attention_bench THREADS ROUNDS H G K CASE...
// A case is TYPE:QUERIES:DEPTH[:JOBS]: the last QUERIES positions of DEPTH in a cache of fp32, bf16 or int8, such as
// bf16:1:4096 for decoding and bf16:512:512 for a prompt. Prints a line per case: milliseconds (min/median/max), the
// median as GB/s of keys and values and as GFLOP/s of the visible positions, and their fractions of the read bandwidth
// and of the peak of the type's dots. PUNA_ISA chooses the instruction set.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/parallel_for.h"
#include "kernels/attention/attention.h"

namespace puna {
namespace {

using kernels::CacheType;
using kernels::Isa;

constexpr int64_t kWorkingSetBytes = int64_t{256} << 20;  // beyond any cache: copies are used in turn
constexpr int64_t kHugePage = int64_t{2} << 20;

struct Free {
  void operator()(std::byte* at) const { ::operator delete (at, std::align_val_t{kHugePage}); }
};
using Bytes = std::unique_ptr<std::byte, Free>;

Bytes allocate(int64_t bytes) {
  Bytes held(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{kHugePage})));
  ::madvise(held.get(), static_cast<size_t>(bytes), MADV_HUGEPAGE);
  std::memset(held.get(), 0, static_cast<size_t>(bytes));
  return held;
}

/// Wall time; with one thread its CPU time, so that other work on the machine does not count.
double seconds_of(int64_t threads, const std::function<void()>& work) {
  const auto now = [threads] {
    timespec time = {};
    ::clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  };
  const double start = now();
  work();
  return now() - start;
}

/// Bytes per second of plain sums over the buffer.
double read_bandwidth(const std::byte* bytes, int64_t size, int64_t threads) {
  const int64_t part = size / threads / 64;
  std::vector<uint64_t> sums(threads * 8);
  const double seconds = seconds_of(threads, [&] {
    parallel_for(threads, threads, [&](int64_t t) {
      uint64_t sum[32] = {}, words[32];
      const std::byte* from = bytes + t * part * 64;
      for (int64_t i = 0; i + 4 <= part; i += 4) {
        __builtin_prefetch(from + i * 64 + 2048);
        std::memcpy(words, from + i * 64, sizeof(words));
        for (int j = 0; j < 32; ++j) sum[j] += words[j];
      }
      sums[t * 8] = std::accumulate(sum, sum + 32, uint64_t{0});
    });
  });
  volatile uint64_t sink = sums[0];
  (void)sink;
  return static_cast<double>(part * 64 * threads) / seconds;
}

double dot_peak(CacheType type, Isa isa, int64_t threads) {
  std::vector<int64_t> operations(threads);
  const double seconds = seconds_of(threads, [&] {
    parallel_for(threads, threads,
                 [&](int64_t t) { operations[t] = kernels::run_attention_dots(type, isa, 1'000'000); });
  });
  return static_cast<double>(std::accumulate(operations.begin(), operations.end(), int64_t{0})) / seconds;
}

struct Spread {
  double low, middle, high;
  explicit Spread(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    low = values.front(), middle = values[values.size() / 2], high = values.back();
  }
};

struct Heads {
  int64_t query, kv, width;
};

struct Case {
  std::string name;
  CacheType type;
  int64_t queries, depth, jobs;
};

/// Sequences of one length, each in blocks of its own: as many as the jobs need, and copies of all.
struct Cache {
  kernels::CacheShape shape;
  int64_t num_blocks, copies, pool_bytes;
  Bytes bytes;  // [copies][keys, values]
  std::vector<int32_t> blocks;

  Cache(const Case& c, const Heads& heads) : shape{c.type, heads.kv, heads.width} {
    num_blocks = (c.depth + shape.block_size - 1) / shape.block_size * c.jobs;
    pool_bytes = num_blocks * kernels::cache_layout(shape).block_bytes;
    copies = std::max<int64_t>(1, c.queries > 16 ? 1 : kWorkingSetBytes / (2 * pool_bytes));
    bytes = allocate(2 * copies * pool_bytes);
    blocks.resize(num_blocks);
    std::iota(blocks.begin(), blocks.end(), 0);
    std::mt19937 random(1);
    std::shuffle(blocks.begin(), blocks.end(), random);
    std::vector<float> rows(4096 * heads.kv * heads.width);
    for (float& value : rows) value = std::normal_distribution<float>(0, 1)(random);
    const int64_t stride = heads.kv * heads.width;
    for (int64_t at = 0; at < num_blocks * shape.block_size; at += 2048) {
      const kernels::KvRows from = {rows.data(), rows.data() + 2048 * stride, stride, stride, false};
      kernels::write_kv(shape, pool(0), {blocks.data()}, at,
                        std::min<int64_t>(2048, num_blocks * shape.block_size - at), from);
    }
    for (int64_t i = 1; i < copies; ++i) std::memcpy(pool(i).keys, bytes.get(), 2 * pool_bytes);
  }

  kernels::CachePool pool(int64_t copy) const {
    std::byte* keys = bytes.get() + 2 * copy * pool_bytes;
    return {keys, keys + pool_bytes};
  }
};

void bench_case(const Case& c, const Heads& heads, Isa isa, int64_t threads, int64_t rounds) {
  const Cache cache(c, heads);
  const int64_t row = heads.query * heads.width, rows = c.queries * c.jobs;
  std::vector<float> queries(rows * row), out(rows * row);
  for (size_t i = 0; i < queries.size(); ++i) queries[i] = static_cast<float>(i % 251) / 125 - 1;
  std::vector<kernels::AttentionJob> jobs;
  for (int64_t j = 0; j < c.jobs; ++j)
    jobs.push_back({{cache.blocks.data() + j * (cache.num_blocks / c.jobs)}, c.depth - c.queries, c.queries});
  kernels::AttentionProblem problem = {.shape = cache.shape,
                                       .pool = cache.pool(0),
                                       .query_heads = heads.query,
                                       .scale = 0.088f,
                                       .jobs = jobs.data(),
                                       .num_jobs = c.jobs,
                                       .queries = queries.data(),
                                       .query_stride = row,
                                       .out = out.data(),
                                       .out_stride = row};
  const Bytes workspace = allocate(std::max<int64_t>(64, kernels::attention_workspace_bytes(problem)));
  const kernels::ParallelFor parallel = [&](int64_t count, const std::function<void(int64_t)>& work) {
    parallel_for(count, threads, work);
  };
  std::vector<double> times, peaks, bandwidths;
  for (int64_t round = 0; round < rounds; ++round) {
    peaks.push_back(dot_peak(c.type, isa, threads));
    bandwidths.push_back(
        read_bandwidth(cache.bytes.get(), std::max(2 * cache.copies * cache.pool_bytes, kHugePage), threads));
    const double seconds = seconds_of(threads, [&] {
      for (int64_t i = 0; i < cache.copies; ++i) {
        problem.pool = cache.pool(i);
        kernels::attention(problem, isa, workspace.get(), parallel);
      }
    });
    times.push_back(seconds / static_cast<double>(cache.copies));
  }
  const Spread time(times), peak(peaks), bandwidth(bandwidths);
  const double seen = static_cast<double>(c.queries * (2 * c.depth - c.queries + 1) / 2 * c.jobs);
  const double operations = 4.0 * seen * static_cast<double>(row) / time.middle;
  const double read = 2.0 * static_cast<double>(cache.pool_bytes) / time.middle;
  std::printf(
      "%-16s  %.3f / %.3f / %.3f ms  %.1f GB/s of %.1f / %.1f / %.1f (%.2f)  %.0f GFLOP/s of %.0f / %.0f / %.0f "
      "(%.2f)\n",
      c.name.c_str(), time.low * 1e3, time.middle * 1e3, time.high * 1e3, read / 1e9, bandwidth.low / 1e9,
      bandwidth.middle / 1e9, bandwidth.high / 1e9, read / bandwidth.middle, operations / 1e9, peak.low / 1e9,
      peak.middle / 1e9, peak.high / 1e9, operations / peak.middle);
  std::fflush(stdout);
}

int64_t number(const std::string& text) {
  char* end = nullptr;
  const long long value = std::strtoll(text.c_str(), &end, 10);
  if (*end || value <= 0) throw UsageError("attention_bench", fmt::format("'{}' is no positive number", text));
  return value;
}

Case case_of(const std::string& text) {
  std::vector<std::string> parts;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ':');) parts.push_back(part);
  if (parts.size() != 3 && parts.size() != 4)
    throw UsageError("attention_bench", fmt::format("'{}' is no TYPE:QUERIES:DEPTH[:JOBS]", text));
  const std::string types[] = {"fp32", "bf16", "int8"};
  const auto type = std::find(std::begin(types), std::end(types), parts[0]);
  if (type == std::end(types))
    throw UsageError("attention_bench", fmt::format("unknown type '{}'; fp32, bf16 or int8", parts[0]));
  Case c = {text, static_cast<CacheType>(type - std::begin(types)), number(parts[1]), number(parts[2]), 1};
  if (parts.size() == 4) c.jobs = number(parts[3]);
  if (c.queries > c.depth) throw UsageError("attention_bench", fmt::format("'{}': more queries than positions", text));
  return c;
}

void bench(int argc, char** argv) {
  const int64_t threads = number(argv[1]), rounds = number(argv[2]);
  const Heads heads = {number(argv[3]), number(argv[4]), number(argv[5])};
  const Isa isa = kernels::chosen_isa();
  std::printf("%s, %lld threads, %lld query heads, %lld key heads of %lld\n",
              std::string(kernels::isa_name(isa)).c_str(), static_cast<long long>(threads),
              static_cast<long long>(heads.query), static_cast<long long>(heads.kv),
              static_cast<long long>(heads.width));
  for (int i = 6; i < argc; ++i) bench_case(case_of(argv[i]), heads, isa, threads, rounds);
}

}  // namespace
}  // namespace puna

int main(int argc, char** argv) {
  if (argc < 7) {
    std::fprintf(stderr, "usage: attention_bench THREADS ROUNDS H G K TYPE:QUERIES:DEPTH[:JOBS]...\n");
    return 2;
  }
  try {
    puna::bench(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
