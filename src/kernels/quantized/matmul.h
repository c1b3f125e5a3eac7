// Matrix products of INT2, INT3, INT4 or INT8 weights with rows of INT8: dots in INT32, sums over groups in FP32; and
// of BF16 or E4M3 weights with rows of BF16: sums in FP32 (float_tile.h). One layout of weights serves every
// instruction set, so that a packed file is good on any machine.
//
// A row's result is the same bits whatever the batch and the number of threads. Each output is computed by one work
// item over all of K; of integers its dots are exact, and their products with the scales are added in the order of K,
// so that instruction sets give the same bits too: span = fma(float(dot), weight_scale, span) over the weights' groups
// of the same row_scale (span += float(dot) with a scale per channel), then sum = fma(span, row_scale, sum).
//
// Bound: few rows, bytes of the packed weights / read bandwidth; many rows, 2 * M * N * K / peak of INT8 or BF16 dots.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace puna::kernels {

/// Instruction sets, worst first.
enum class Isa : uint8_t { Reference, Avx2, Avx512Vnni };
inline constexpr Isa kIsas[] = {Isa::Reference, Isa::Avx2, Isa::Avx512Vnni};

std::string_view isa_name(Isa isa);  // "reference", "avx2", "avx512_vnni"
std::optional<Isa> isa_from_name(std::string_view name);

/// Whether this build and this CPU have it.
bool isa_available(Isa isa);

/// The best one available, or the one that PUNA_ISA names; Error when that is unknown or not available.
Isa chosen_isa();

/// weight[n, k] = scale * (q - zero), with one scale (and zero) per row or per group of a row.
struct WeightFormat {
  int bits = 4;                 // 2, 3, 4 or 8: q from -2^(bits - 1) to 2^(bits - 1) - 1
  int64_t group = 128;          // 32 or 128: of the weights' scales and zeros; of dots alone with channel_scales
  bool channel_scales = false;  // one FP32 scale for each of N; else one BF16 scale for each of N and group
  bool zeros = false;           // zero points, of the range of q; else 0
  bool floats = false;          // no integers: E4M3 with channel_scales (8 bits), or BF16 (16), and rows of BF16

  static constexpr WeightFormat bf16() { return {.bits = 16, .floats = true}; }
  static constexpr WeightFormat e4m3() { return {.bits = 8, .channel_scales = true, .floats = true}; }
  /// Whether both are multiplied by rows laid out alike: of BF16, or of INT8 with sums of the same groups.
  bool takes_rows_of(const WeightFormat& other) const { return floats == other.floats && group == other.group; }
  bool operator==(const WeightFormat&) const = default;
};

struct WeightShape {
  int64_t n, k;  // outputs, inputs; any size from 1
  WeightFormat format;
};

/// Matrices of one size, such as the experts of a layer. Their formats may differ, but all take the same rows.
struct WeightShapes {
  int64_t n = 0, k = 0;
  std::vector<WeightFormat> formats = {};  // of each matrix

  WeightShapes() = default;
  WeightShapes(const WeightShape& each, int64_t count)
      : n(each.n), k(each.k), formats(static_cast<size_t>(count), each.format) {}
  int64_t count() const { return static_cast<int64_t>(formats.size()); }
  bool floats() const { return formats.front().floats; }
  WeightShape operator[](int64_t i) const { return {n, k, formats[static_cast<size_t>(i)]}; }
};

/// The packed form: tiles of 16 outputs one after another, each tile_bytes (a multiple of 64) long:
///   quants  bytes of q + 2^(bits - 1), [padded_k / 32, bits * 64] in order of K; the 64 are [16, 4]: output n, byte j
///           8 bits: byte [i, n, j] is k = 4 i + j
///           4 bits: of byte [i, n, j] the low nibble is k = 8 i + j, the high one k + 4
///           2 bits: of byte [i, n, j] bits 0, 4, 2 and 6 begin k = 16 i + j, k + 4, k + 8 and k + 12
///           3 bits: for 32 of K two of the 64 with the low two bits of each, as above, then one with the third bits:
///                   of byte [n, j] bits 0, 4, 1, 5, 2, 6, 3 and 7 are k = j, j + 4, ..., j + 28
///   scales  [blocks, 16] BF16, or [16] FP32 with channel_scales; at scales_offset; a block is a group of K
///   zeros   [blocks, 16] bytes of zero + 2^(bits - 1), when there are; at zeros_offset
/// K is padded to whole groups by weights of value 0, N to whole tiles by rows of scale 0. Of floats:
///   values  BF16 [padded_k / 2, 16, 2]; E4M3 [padded_k / 4, 4, 2, 4, 2], of which byte [i, o, p, n, j] is
///           k = 4 i + 2 p + j of output 4 o + n; K is padded to a multiple of 4, N to whole tiles, both by zeros
///   scales  [16] FP32 of E4M3, at scales_offset
struct PackedLayout {
  int64_t tiles, blocks;  // of N, of K
  int64_t scales_offset, zeros_offset, tile_bytes;
  int64_t padded_k;
  int64_t row_bytes;  // of a row of x in matmul()'s workspace
  int64_t total_bytes;
};
inline constexpr int64_t kTileOutputs = 16;
inline constexpr int64_t kPackedAlignment = 64;  // of packed weights and of workspaces, in bytes

PackedLayout packed_layout(const WeightShape& shape);
/// Bytes of all of them.
int64_t packed_bytes(const WeightShapes& shapes);

/// q int8 [n, k], or E4M3 bits; scales [n, groups], rounded to BF16 unless channel_scales; zeros int8 [n, groups] or
/// null; groups is ceil(k / group), or 1 with channel_scales. packed: total_bytes, aligned. Values out of range are an
/// InternalError.
void pack_weights(const WeightShape& shape, const int8_t* q, const float* scales, const int8_t* zeros,
                  std::byte* packed);

/// The same of floats, also from weights that lie [k, n]: E4M3 or BF16 bits of [n, k] at values + n * output_stride +
/// k * input_stride; scales [n] with E4M3, else null.
void pack_floats(const WeightShape& shape, const void* values, int64_t output_stride, int64_t input_stride,
                 const float* scales, std::byte* packed);

/// The values of such packed weights, with the scales: out [n, k].
void unpack_floats(const WeightShape& shape, const std::byte* packed, float* out);

inline constexpr int64_t kRowGroup = 128;  // values of a row with one scale
inline constexpr int64_t kRowSum = 32;     // and with one sum: what a weight's zero is multiplied with

/// Quantised rows: x[m, k] = scales[m, k / kRowGroup] * q[m, k]. One serves weights of all formats.
struct QuantizedRows {
  int8_t* q;      // [rows, RowLayout::values], zeros after K
  float* scales;  // [rows, RowLayout::scales] largest magnitude / 127
  int16_t* sums;  // [rows, RowLayout::sums] of q
};

struct RowLayout {
  int64_t values, scales, sums;
};
inline RowLayout row_layout(int64_t k) {
  const int64_t groups = (k + kRowGroup - 1) / kRowGroup;
  return {groups * kRowGroup, groups, groups * (kRowGroup / kRowSum)};
}

/// Quantises rows begin to end of x, FP32 or BF16 bits, [rows, k] with a stride in elements. Nearest, ties to even; the
/// same bits on every instruction set. A group with a value that is not finite gets the scale NaN; one whose largest
/// magnitude is under 1e-36 becomes zeros.
void quantize_rows(const float* x, int64_t stride, int64_t k, int64_t begin, int64_t end, Isa isa,
                   const QuantizedRows& rows);
void quantize_rows(const uint16_t* x, int64_t stride, int64_t k, int64_t begin, int64_t end, Isa isa,
                   const QuantizedRows& rows);

/// The same of silu(gate) * up, FP32, each [rows, k] with the stride: what a feed-forward layer's last product takes.
void quantize_swiglu_rows(const float* gate, const float* up, int64_t stride, int64_t k, int64_t begin, int64_t end,
                          Isa isa, const QuantizedRows& rows);

/// The same products as rows of weights with floats take them: out [rows, k] BF16, rounded to nearest even.
void swiglu_rows(const float* gate, const float* up, int64_t stride, int64_t k, int64_t begin, int64_t end, Isa isa,
                 uint16_t* out);

/// Rows sorted by expert times that expert's weights; a plain product has one expert. out[r, n] for r < offsets[E] is
/// factor_r * sum over k of x[row_r, k] * weight[n, k]. Experts without rows cost nothing, nor are their weights read.
struct MatmulProblem {
  WeightShape shape;
  const WeightFormat* formats = nullptr;  // [E] of each expert's weights, that take shape's rows; null: shape's
  int64_t num_experts;                    // E
  const std::byte* const* weights;        // [E] packed
  const int64_t* offsets;                 // [E + 1] rising from 0: expert e has rows offsets[e] to offsets[e + 1]
  QuantizedRows x;
  const uint16_t* x_bf16 = nullptr;    // [rows, k], where the format has floats
  const int32_t* row_index = nullptr;  // [offsets[E]] row_r; null: r
  const float* row_factors = nullptr;  // [offsets[E]] factor_r, such as a router's score; null: 1
  void* out;                           // [offsets[E], n] FP32, or BF16 rounded to nearest even
  int64_t out_stride;                  // elements
  bool out_bf16 = false;
};

/// Runs work(0), ..., work(count - 1), each once, in any order, on any threads; returns when all are done.
using ParallelFor = std::function<void(int64_t count, const std::function<void(int64_t)>& work)>;

/// Bytes of workspace that matmul() needs for that many rows; a multiple of kPackedAlignment.
int64_t matmul_workspace_bytes(const WeightShape& shape, int64_t rows);

/// workspace: aligned, overwritten, for several problems the sum of theirs. Calls parallel_for once for at most 16 rows
/// together, else twice: several problems wait for each other no more often than one.
void matmul(std::span<const MatmulProblem> problems, Isa isa, std::byte* workspace, const ParallelFor& parallel_for);
inline void matmul(const MatmulProblem& problem, Isa isa, std::byte* workspace, const ParallelFor& parallel_for) {
  matmul(std::span(&problem, 1), isa, workspace, parallel_for);
}

/// What multiplies floats: "reference", "avx2", "avx512_bf16" (with Isa::Avx512Vnni where the CPU has it).
std::string_view float_kernel_name(Isa isa);

/// Operations (multiplications and additions) of the instruction set's own INT8 or BF16 dot, without loads; for
/// benchmarks.
int64_t run_int8_dots(Isa isa, int64_t rounds);
int64_t run_bf16_dots(Isa isa, int64_t rounds);

}  // namespace puna::kernels
