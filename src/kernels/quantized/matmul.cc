// Panels: the rows of each expert are cut into groups of as many as a tile kernel takes, and interleaved in the
// workspace. Work items: a span of an expert's panels (fits L2) times a span of its tiles (enough bytes to be worth
// it).
#include "kernels/quantized/matmul.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>
#include <vector>

#include "base/error.h"
#include "kernels/quantized/float_tile.h"
#include "kernels/quantized/isa.h"
#include "kernels/quantized/rounding.h"

namespace puna::kernels {
namespace {

constexpr int64_t kPanelSpanBytes = 512 * 1024;  // half of the smallest L2 of this class of CPUs
constexpr int64_t kTileSpanBytes = 256 * 1024;   // 10 us of reading: small beside a step, large beside a hand-over
constexpr int64_t kSerialRows = 16;              // that few rows are interleaved faster than threads wake
constexpr int kMostRows = 16;

struct Panel {
  int64_t expert;
  int64_t first;  // routed row
  int rows;
};

WeightShape shape_of(const MatmulProblem& p, int64_t expert) {
  return {p.shape.n, p.shape.k, p.formats ? p.formats[expert] : p.shape.format};
}

/// A problem with its part of the workspace.
struct Job {
  const MatmulProblem& problem;
  PackedLayout layout;  // of rows, the same for all experts
  std::byte* workspace;
  std::vector<Panel> panels;
  std::vector<int64_t> first_of_expert;  // panels, and their number
};

struct Item {
  const Job* job;
  int64_t expert;
  int64_t first_panel, end_panel;
  int64_t first_tile, end_tile;
};

/// A panel of integers in the workspace: [values][scales][starts], at its first row's place.
struct PanelBytes {
  int8_t* x;
  float* scales;
  int32_t* dot_starts;

  PanelBytes(std::byte* workspace, const PackedLayout& layout, const Panel& panel) {
    std::byte* at = workspace + panel.first * layout.row_bytes;
    x = reinterpret_cast<int8_t*>(at);
    scales = reinterpret_cast<float*>(at + panel.rows * layout.padded_k);
    dot_starts = reinterpret_cast<int32_t*>(scales + panel.rows * row_layout(layout.padded_k).scales);
  }
};

/// Each four bytes to every `step`-th four of `to`. Values, not references: a byte written might be one of those.
void interleave(const int8_t* from, int64_t count, int64_t step, int8_t* to) {
  for (int64_t k = 0; k < count; k += 4, to += 4 * step) std::memcpy(to, from + k, 4);
}

/// Of floats a panel is [padded_k / 2, rows, 2] alone.
void fill_float_panel(const MatmulProblem& p, const PackedLayout& layout, const Panel& panel, std::byte* workspace) {
  auto* to = reinterpret_cast<int8_t*>(workspace + panel.first * layout.row_bytes);
  const int64_t k = p.shape.k, whole = k / 2 * 2;
  for (int i = 0; i < panel.rows; ++i, to += 4) {
    const int64_t row = p.row_index ? p.row_index[panel.first + i] : panel.first + i;
    const uint16_t* from = p.x_bf16 + row * k;
    interleave(reinterpret_cast<const int8_t*>(from), 2 * whole, panel.rows, to);
    for (int64_t at = whole; at < layout.padded_k; at += 2) {
      const uint16_t rest[2] = {at < k ? from[at] : uint16_t{0}, 0};
      std::memcpy(to + 2 * at * panel.rows, rest, sizeof(rest));
    }
  }
}

void fill_panel(const MatmulProblem& p, const PackedLayout& layout, const Panel& panel, std::byte* workspace) {
  if (p.shape.format.floats) return fill_float_panel(p, layout, panel, workspace);
  const PanelBytes bytes(workspace, layout, panel);
  const WeightFormat format = shape_of(p, panel.expert).format;
  const int offset = format.zeros ? 1 : 1 << (format.bits - 1);
  const RowLayout of_row = row_layout(p.shape.k);
  const int64_t sums_per_block = format.group / kRowSum;
  for (int i = 0; i < panel.rows; ++i) {
    const int64_t row = p.row_index ? p.row_index[panel.first + i] : panel.first + i;
    const int8_t* from = p.x.q + row * of_row.values;
    interleave(from, layout.padded_k, panel.rows, bytes.x + 4 * i);
    const float* scales = p.x.scales + row * of_row.scales;
    const int16_t* sums = p.x.sums + row * of_row.sums;
    for (int64_t g = 0; g < of_row.scales; ++g) bytes.scales[g * panel.rows + i] = scales[g];
    for (int64_t b = 0; b < layout.blocks; ++b, sums += sums_per_block) {
      const int32_t sum = std::accumulate(sums, sums + sums_per_block, int32_t{0});
      bytes.dot_starts[b * panel.rows + i] = -sum * offset;
    }
  }
}

/// As few panels as can be, of sizes as equal as can be: 13 rows are 7 and 6.
void cut_panels(Job& job, int most_rows) {
  const MatmulProblem& p = job.problem;
  for (int64_t e = 0; e < p.num_experts; ++e) {
    job.first_of_expert.push_back(static_cast<int64_t>(job.panels.size()));
    PUNA_CHECK(p.offsets[e] <= p.offsets[e + 1], "offsets fall after expert {}", e);
    for (int64_t row = p.offsets[e]; row < p.offsets[e + 1]; row += job.panels.back().rows) {
      const int64_t left = p.offsets[e + 1] - row, count = (left + most_rows - 1) / most_rows;
      job.panels.push_back({e, row, static_cast<int>((left + count - 1) / count)});
    }
  }
  job.first_of_expert.push_back(static_cast<int64_t>(job.panels.size()));
}

void cut_items(const Job& job, std::vector<Item>& items) {
  const std::vector<Panel>& panels = job.panels;
  const int64_t span_rows = std::max<int64_t>(1, kPanelSpanBytes / job.layout.row_bytes);
  for (int64_t e = 0; e < job.problem.num_experts; ++e) {
    const int64_t last_panel = job.first_of_expert[e + 1];
    if (job.first_of_expert[e] == last_panel) continue;
    const WeightShape shape = shape_of(job.problem, e);
    PUNA_CHECK(shape.format.takes_rows_of(job.problem.shape.format), "expert {} takes other rows: groups of {}", e,
               shape.format.group);
    const PackedLayout layout = packed_layout(shape);
    const int64_t span_tiles = std::max<int64_t>(1, kTileSpanBytes / layout.tile_bytes);
    for (int64_t first = job.first_of_expert[e], end; first < last_panel; first = end) {
      const int64_t last_row = panels[first].first + span_rows;
      for (end = first + 1; end < last_panel && panels[end].first + panels[end].rows <= last_row;) ++end;
      for (int64_t t = 0; t < layout.tiles; t += span_tiles) {
        items.push_back({&job, e, first, end, t, std::min(t + span_tiles, layout.tiles)});
      }
    }
  }
}

/// Writes rows [rows, 16] of a tile to the problem's output.
void store(const MatmulProblem& p, const Panel& panel, int64_t first_output, const float* values) {
  const int64_t outputs = std::min(kTileOutputs, p.shape.n - first_output);
  for (int i = 0; i < panel.rows; ++i) {
    const int64_t row = panel.first + i, at = row * p.out_stride + first_output;
    const float factor = p.row_factors ? p.row_factors[row] : 1;
    const float* from = values + i * kTileOutputs;
    if (p.out_bf16) {
      uint16_t* to = static_cast<uint16_t*>(p.out) + at;
      for (int64_t n = 0; n < outputs; ++n) to[n] = bf16_from_float(from[n] * factor);
    } else {
      float* to = static_cast<float*>(p.out) + at;
      for (int64_t n = 0; n < outputs; ++n) to[n] = from[n] * factor;
    }
  }
}

void run_float_item(const Item& item, const FloatTileKernels& kernels) {
  const MatmulProblem& p = item.job->problem;
  const WeightShape shape = shape_of(p, item.expert);
  const PackedLayout layout = packed_layout(shape);
  alignas(64) float values[kMostRows * kTileOutputs];
  const bool e4m3 = shape.format.bits == 8;
  for (int64_t t = item.first_tile; t < item.end_tile; ++t) {
    const std::byte* tile = p.weights[item.expert] + t * layout.tile_bytes;
    FloatTileProblem problem = {.padded_k = layout.padded_k, .weights = tile, .scales = nullptr, .x = nullptr};
    if (e4m3) problem.scales = reinterpret_cast<const float*>(tile + layout.scales_offset);
    for (int64_t i = item.first_panel; i < item.end_panel; ++i) {
      const Panel& panel = item.job->panels[i];
      problem.x = reinterpret_cast<const uint16_t*>(item.job->workspace + panel.first * layout.row_bytes);
      (e4m3 ? kernels.e4m3 : kernels.bf16)(panel.rows, problem, values);
      store(p, panel, t * kTileOutputs, values);
    }
  }
}

/// The quants of a tile in 4 or 8 bits, until the thread's next call.
const uint8_t* wide_quants(const WeightFormat& format, const PackedLayout& layout, const std::byte* tile,
                           const TileKernels& kernels) {
  const auto* quants = reinterpret_cast<const uint8_t*>(tile);
  if (format.bits >= 4) return quants;
  struct alignas(kPackedAlignment) Line {
    uint8_t bytes[kPackedAlignment];
  };
  thread_local std::vector<Line> nibbles;
  nibbles.resize(static_cast<size_t>(layout.padded_k * kTileOutputs / 2 / kPackedAlignment));
  kernels.widen(format.bits, layout.padded_k, quants, nibbles.front().bytes);
  return nibbles.front().bytes;
}

void run_item(const Item& item, const TileKernels& kernels) {
  const MatmulProblem& p = item.job->problem;
  const WeightShape shape = shape_of(p, item.expert);
  const WeightFormat& format = shape.format;
  const PackedLayout layout = packed_layout(shape);
  alignas(64) float values[kMostRows * kTileOutputs];
  for (int64_t t = item.first_tile; t < item.end_tile; ++t) {
    const std::byte* tile = p.weights[item.expert] + t * layout.tile_bytes;
    const std::byte* scales = tile + layout.scales_offset;
    TileProblem problem = {};
    problem.blocks = layout.blocks;
    problem.group = format.group;
    problem.quants = wide_quants(format, layout, tile, kernels);
    if (format.channel_scales) {
      problem.channel_scales = reinterpret_cast<const float*>(scales);
    } else {
      problem.scales = reinterpret_cast<const uint16_t*>(scales);
      problem.next_scales = reinterpret_cast<const uint16_t*>(scales + layout.tile_bytes);
    }
    if (format.zeros) problem.zeros = reinterpret_cast<const uint8_t*>(tile + layout.zeros_offset);
    for (int64_t i = item.first_panel; i < item.end_panel; ++i) {
      const Panel& panel = item.job->panels[i];
      const PanelBytes bytes(item.job->workspace, layout, panel);
      problem.x = bytes.x;
      problem.row_scales = bytes.scales;
      problem.dot_starts = bytes.dot_starts;
      kernels.tile(std::max(format.bits, 4), panel.rows, problem, values);
      store(p, panel, t * kTileOutputs, values);
    }
  }
}

}  // namespace

int64_t matmul_workspace_bytes(const WeightShape& shape, int64_t rows) {
  const int64_t bytes = rows * packed_layout(shape).row_bytes;
  return (bytes + kPackedAlignment - 1) / kPackedAlignment * kPackedAlignment;
}

void matmul(std::span<const MatmulProblem> problems, Isa isa, std::byte* workspace, const ParallelFor& parallel_for) {
  const TileKernels& kernels = tile_kernels(isa);
  const FloatTileKernels& float_kernels = float_tile_kernels(isa);
  PUNA_CHECK(std::bit_cast<uintptr_t>(workspace) % kPackedAlignment == 0, "the workspace is not aligned");
  std::vector<Job> jobs;
  jobs.reserve(problems.size());
  std::vector<Item> items;
  std::vector<std::pair<const Job*, const Panel*>> panels;
  int64_t rows = 0;
  for (const MatmulProblem& problem : problems) {
    PUNA_CHECK(problem.offsets[0] == 0, "offsets begin with {}", problem.offsets[0]);
    Job& job = jobs.emplace_back(Job{problem, packed_layout(problem.shape), workspace, {}, {}});
    const int64_t of_problem = problem.offsets[problem.num_experts];
    workspace += matmul_workspace_bytes(problem.shape, of_problem);
    rows += of_problem;
    cut_panels(job, problem.shape.format.floats ? float_kernels.most_rows : kernels.most_rows);
    cut_items(job, items);
    for (const Panel& panel : job.panels) panels.emplace_back(&job, &panel);
  }
  const auto fill = [&](int64_t i) {
    const auto& [job, panel] = panels[i];
    fill_panel(job->problem, job->layout, *panel, job->workspace);
  };
  if (rows <= kSerialRows) {
    for (int64_t i = 0; i < static_cast<int64_t>(panels.size()); ++i) fill(i);
  } else {
    parallel_for(static_cast<int64_t>(panels.size()), fill);
  }
  const auto run = [&](int64_t i) {
    items[i].job->problem.shape.format.floats ? run_float_item(items[i], float_kernels) : run_item(items[i], kernels);
  };
  if (!items.empty()) parallel_for(static_cast<int64_t>(items.size()), run);
}

}  // namespace puna::kernels
