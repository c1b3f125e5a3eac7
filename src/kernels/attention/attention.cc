// Row tiles: the rows of a job at positions of one tile of 16 and one chunk, for each head of the cache. A row tile's
// splits are computed one after another, or as work items of their own where there are few row tiles.
#include "kernels/attention/attention.h"

#include <algorithm>
#include <bit>
#include <memory>
#include <new>
#include <numbers>
#include <vector>

#include "base/error.h"
#include "kernels/attention/kernels.h"
#include "kernels/quantized/rounding.h"

namespace puna::kernels {
namespace {

constexpr int64_t kSmallestSplit = 512;   // positions; of keys and values of 128 BF16, 256 KB
constexpr int64_t kMostSplits = 32;       // of a row, and one more where the first begins within
constexpr int64_t kEnoughItems = 128;     // more are not needed to keep threads busy
constexpr int64_t kMostSplitRows = 2048;  // that have partial sums in the workspace
constexpr int64_t kTileRows = 128;        // about as many rows and their sums as L2 holds

struct RowTile {
  int64_t job, row;  // of the call, the first one's
  int64_t first_position, positions;
  int64_t lowest;             // first position seen
  int64_t split, num_splits;  // positions of a split
  int64_t partial = -1;       // its first partial row in the workspace, [splits, kv_heads, rows]; -1: splits one by one
};

struct Item {
  int64_t tile, kv_head;
  int64_t first_split, end_split;
};

struct Plan {
  int64_t group, padded_width;
  std::vector<RowTile> tiles;
  std::vector<Item> items;
  int64_t partial_rows = 0;
};

int64_t round_down(int64_t value, int64_t step) { return value / step * step; }

/// A function of the position alone: few enough splits, the same for all rows of a tile.
int64_t split_of(int64_t tile_position, int64_t lowest) {
  int64_t split = kSmallestSplit;
  while (split * kMostSplits < tile_position + kTilePositions - round_down(lowest, kTilePositions)) split *= 2;
  return split;
}

void check(const AttentionProblem& p) {
  PUNA_CHECK(p.query_heads > 0 && p.query_heads % p.shape.kv_heads == 0, "attention: {} query heads, {} of the cache",
             p.query_heads, p.shape.kv_heads);
  for (int64_t j = 0; j < p.num_jobs; ++j) {
    const AttentionJob& job = p.jobs[j];
    PUNA_CHECK(job.table.first_position % p.shape.block_size == 0 && job.query_begin >= job.table.first_position,
               "attention: queries from {} with blocks of {} from {}", job.query_begin, p.shape.block_size,
               job.table.first_position);
  }
}

int64_t first_visible(const AttentionProblem& p, const AttentionJob& job, int64_t position) {
  return std::max(job.table.first_position, p.chunk ? round_down(position, p.chunk) : 0);
}

std::vector<RowTile> cut_tiles(const AttentionProblem& p) {
  const int64_t group = p.query_heads / p.shape.kv_heads;
  int64_t most = kTilePositions;
  while (most > 1 && most * group > kTileRows) most /= 2;
  std::vector<RowTile> tiles;
  int64_t row = 0;
  for (int64_t j = 0; j < p.num_jobs; ++j) {
    const AttentionJob& job = p.jobs[j];
    for (int64_t at = job.query_begin, end, last = at + job.num_queries; at < last; row += end - at, at = end) {
      end = std::min(last, round_down(at, most) + most);
      if (p.chunk) end = std::min(end, round_down(at, p.chunk) + p.chunk);
      RowTile tile = {j, row, at, end - at, first_visible(p, job, at), 0, 0, -1};
      tile.split = split_of(round_down(at, kTilePositions), tile.lowest);
      tile.num_splits = at / tile.split - tile.lowest / tile.split + 1;
      tiles.push_back(tile);
    }
  }
  return tiles;
}

Plan plan_of(const AttentionProblem& p) {
  check(p);
  Plan plan = {p.query_heads / p.shape.kv_heads, cache_layout(p.shape).padded_width, cut_tiles(p), {}, 0};
  const auto count = static_cast<int64_t>(plan.tiles.size()), heads = p.shape.kv_heads;
  int64_t rows = 0;
  for (const RowTile& tile : plan.tiles) rows += tile.positions * p.query_heads;
  const bool few = count * heads < kEnoughItems && rows <= kMostSplitRows;
  // The last tiles of prompts see the most: they are begun first.
  for (int64_t t = count; t-- > 0;) {
    RowTile& tile = plan.tiles[t];
    int64_t run = tile.num_splits;
    if (few && tile.num_splits > 1) {
      tile.partial = plan.partial_rows;
      plan.partial_rows += tile.num_splits * tile.positions * p.query_heads;
      run = (tile.num_splits * count * heads + kEnoughItems - 1) / kEnoughItems;
    }
    for (int64_t head = 0; head < heads; ++head) {
      for (int64_t split = 0; split < tile.num_splits; split += run) {
        plan.items.push_back({t, head, split, std::min(split + run, tile.num_splits)});
      }
    }
  }
  return plan;
}

/// Rows `first` and on of partial sums that lie at `at`: [rows] maxima, [rows] sums, [rows, padded_width] values.
PartialRows partial_at(std::byte* at, int64_t rows, int64_t first, int64_t padded_width) {
  float* floats = reinterpret_cast<float*>(at);
  return {floats + first, floats + rows + first, floats + 2 * rows + first * padded_width};
}

int64_t partial_bytes(int64_t rows, int64_t padded_width) {
  return (rows * (padded_width + 2) * static_cast<int64_t>(sizeof(float)) + 63) / 64 * 64;
}

/// Grows, and stays with its thread for the next call.
std::byte* thread_scratch(int64_t bytes) {
  struct Free {
    void operator()(std::byte* at) const { ::operator delete (at, std::align_val_t{kCacheAlignment}); }
  };
  thread_local std::unique_ptr<std::byte, Free> held;
  thread_local int64_t size = 0;
  if (size < bytes) {
    held.reset(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{kCacheAlignment})));
    size = bytes;
  }
  return held.get();
}

QueryRows query_rows(const AttentionProblem& p, const Plan& plan, const RowTile& tile, int64_t kv_head) {
  const int64_t at = tile.row * p.query_stride + kv_head * plan.group * p.shape.width;
  QueryRows rows = {};
  rows.first_position = tile.first_position;
  rows.positions = tile.positions;
  rows.group = plan.group;
  rows.lowest = tile.lowest;
  rows.queries = static_cast<const std::byte*>(p.queries) + at * (p.queries_bf16 ? 2 : 4);
  rows.position_stride = p.query_stride;
  rows.width = p.shape.width;
  rows.padded_width = plan.padded_width;
  rows.bf16 = p.queries_bf16;
  rows.scale = p.scale * std::numbers::log2e_v<float>;
  return rows;
}

void store_rows(const AttentionProblem& p, const Plan& plan, const RowTile& tile, int64_t kv_head,
                const PartialRows& sums) {
  for (int64_t i = 0; i < tile.positions * plan.group; ++i) {
    const int64_t to =
        (tile.row + i / plan.group) * p.out_stride + (kv_head * plan.group + i % plan.group) * p.shape.width;
    const float* values = sums.values + i * plan.padded_width;
    for (int64_t d = 0; d < p.shape.width; ++d) {
      // Positions that a row does not see may have turned a zero's sign.
      const float value = values[d] / sums.sums[i] + 0.0f;
      if (p.out_bf16) {
        static_cast<uint16_t*>(p.out)[to + d] = bf16_from_float(value);
      } else {
        static_cast<float*>(p.out)[to + d] = value;
      }
    }
  }
}

class Run {
 public:
  Run(const AttentionKernels& kernels, const AttentionProblem& p, const Plan& plan, std::byte* workspace)
      : kernels_(kernels), p_(p), plan_(plan), layout_(cache_layout(p.shape)), workspace_(workspace) {}

  void item(int64_t index) const {
    const Item& item = plan_.items[index];
    const RowTile& tile = plan_.tiles[item.tile];
    const int64_t rows = tile.positions * plan_.group, sums_bytes = partial_bytes(rows, plan_.padded_width);
    std::byte* scratch = thread_scratch(2 * sums_bytes + attention_scratch_bytes(rows, plan_.padded_width));
    const PartialRows sum = partial_at(scratch, rows, 0, plan_.padded_width);
    const PartialRows next = partial_at(scratch + sums_bytes, rows, 0, plan_.padded_width);
    scratch += 2 * sums_bytes;

    const QueryRows queries = query_rows(p_, plan_, tile, item.kv_head);
    const AttentionKernels::OfType& kernels = kernels_.types[static_cast<int>(p_.shape.type)];
    kernels.prepare(queries, scratch);
    for (int64_t split = item.first_split; split < item.end_split; ++split) {
      SplitProblem problem = split_problem(tile, item, split);
      problem.first = split == item.first_split;
      problem.scratch = scratch;
      problem.out = tile.partial >= 0 ? partial(tile, item.kv_head, split) : split == 0 ? sum : next;
      kernels.split(queries, problem);
      if (tile.partial < 0 && split > 0) kernels_.merge(rows, plan_.padded_width, next, sum);
    }
    if (tile.partial < 0) store_rows(p_, plan_, tile, item.kv_head, sum);
  }

  /// Adds the splits of a tile that are in the workspace.
  void merge(const RowTile& tile, int64_t kv_head) const {
    const PartialRows sum = partial(tile, kv_head, 0);
    for (int64_t split = 1; split < tile.num_splits; ++split) {
      kernels_.merge(tile.positions * plan_.group, plan_.padded_width, partial(tile, kv_head, split), sum);
    }
    store_rows(p_, plan_, tile, kv_head, sum);
  }

 private:
  PartialRows partial(const RowTile& tile, int64_t kv_head, int64_t split) const {
    const int64_t rows = tile.positions * plan_.group;
    return partial_at(workspace_, plan_.partial_rows, tile.partial + (split * p_.shape.kv_heads + kv_head) * rows,
                      plan_.padded_width);
  }

  SplitProblem split_problem(const RowTile& tile, const Item& item, int64_t split) const {
    const int64_t head_offset = item.kv_head * (layout_.block_bytes / p_.shape.kv_heads);
    const int64_t from = tile.lowest / tile.split,
                  seen = round_down(tile.first_position, kTilePositions) + kTilePositions;
    SplitProblem problem = {};
    problem.tiles = {p_.pool.keys + head_offset, p_.pool.values + head_offset, p_.jobs[tile.job].table,
                     p_.shape.block_size,        layout_.block_bytes,          layout_.tile_bytes};
    problem.begin = std::max((from + split) * tile.split, round_down(tile.lowest, kTilePositions));
    problem.end = std::min((from + split + 1) * tile.split, seen);
    problem.prefetch_end = std::min((from + item.end_split) * tile.split, seen);
    return problem;
  }

  const AttentionKernels& kernels_;
  const AttentionProblem& p_;
  const Plan& plan_;
  const CacheLayout layout_;
  std::byte* const workspace_;
};

void plain_attention(const AttentionProblem& p, const ParallelFor& parallel_for) {
  check(p);
  struct Row {
    int64_t job, position;
  };
  std::vector<Row> rows;
  for (int64_t j = 0; j < p.num_jobs; ++j) {
    for (int64_t i = 0; i < p.jobs[j].num_queries; ++i) rows.push_back({j, p.jobs[j].query_begin + i});
  }
  if (rows.empty()) return;
  parallel_for(static_cast<int64_t>(rows.size()) * p.query_heads, [&](int64_t i) {
    const Row& row = rows[i / p.query_heads];
    const AttentionJob& job = p.jobs[row.job];
    reference_attention(p, job.table,
                        {i / p.query_heads, i % p.query_heads, row.position, first_visible(p, job, row.position)});
  });
}

}  // namespace

const AttentionKernels* attention_kernels(Isa isa) {
  PUNA_CHECK(isa_available(isa), "{} is not available on this CPU", isa_name(isa));
  if (isa == Isa::Reference) return nullptr;
  if (isa == Isa::Avx2) return avx2_attention_kernels();
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512bf16")) return avx512_bf16_attention_kernels();
#endif
  return avx512_attention_kernels();
}

std::string_view attention_kernel_name(CacheType type, Isa isa) {
  if (type == CacheType::Bfloat16 && isa == Isa::Avx512Vnni &&
      attention_kernels(isa) == avx512_bf16_attention_kernels())
    return "avx512_bf16";
  return isa_name(isa);
}

int64_t attention_workspace_bytes(const AttentionProblem& p) {
  const Plan plan = plan_of(p);
  return plan.partial_rows ? partial_bytes(plan.partial_rows, plan.padded_width) : 0;
}

void attention_with(const AttentionKernels* kernels, const AttentionProblem& p, std::byte* workspace,
                    const ParallelFor& parallel_for) {
  if (!kernels) return plain_attention(p, parallel_for);
  const Plan plan = plan_of(p);
  if (plan.items.empty()) return;
  PUNA_CHECK(plan.partial_rows == 0 || (workspace && std::bit_cast<uintptr_t>(workspace) % kCacheAlignment == 0),
             "the workspace is missing or not aligned");
  const Run run(*kernels, p, plan, workspace);
  parallel_for(static_cast<int64_t>(plan.items.size()), [&](int64_t i) { run.item(i); });
  std::vector<Item> apart;
  for (const Item& item : plan.items) {
    if (item.first_split == 0 && plan.tiles[item.tile].partial >= 0) apart.push_back(item);
  }
  if (apart.empty()) return;
  parallel_for(static_cast<int64_t>(apart.size()),
               [&](int64_t i) { run.merge(plan.tiles[apart[i].tile], apart[i].kv_head); });
}

int64_t run_attention_dots(CacheType type, Isa isa, int64_t rounds) {
  const AttentionKernels* kernels = attention_kernels(isa);
  if (kernels) return kernels->types[static_cast<int>(type)].dots(rounds);
  volatile float sum = 0;
  for (int64_t i = 0; i < rounds; ++i) sum = sum * 0.5f + 3;
  return 2 * rounds;
}

void attention(const AttentionProblem& p, Isa isa, std::byte* workspace, const ParallelFor& parallel_for) {
  attention_with(attention_kernels(isa), p, workspace, parallel_for);
}

}  // namespace puna::kernels
