// Attention of queries over the paged cache, for decode, prompts, and both at once: a ragged list of jobs.
//
// A query row's result is the same bits whatever other rows and jobs are in the call, whether its prompt came in one
// piece or several or token by token, whatever blocks hold its positions, and on any number of threads: its positions
// are cut into splits by a rule that knows the row's position alone, each split is an online softmax over blocks of 64
// absolute positions, and splits are added in order. Instruction sets differ in the last bits.
//
// FP32 cache: FP32 throughout. BF16: queries and softmax weights are rounded to BF16, sums are FP32. INT8: queries are
// rounded to 127 steps of each row's largest magnitude, weights to 32,767 or more of the largest of 64 positions.
// Isa::Reference rounds nothing and sums in double. Of rows of normal numbers the result's error, as root of the mean
// square relative to the result, is under 0.005 with a BF16 cache and under 0.02 with INT8, the cache's own included.
//
// Bound: decode, bytes of the visible keys and values / read bandwidth; prompts, 4 * K operations for each query head
// and visible position / peak of the type's dot.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "kernels/attention/cache.h"
#include "kernels/quantized/matmul.h"

namespace puna::kernels {

/// Queries at positions query_begin and on; their keys and values, own ones included, are in the cache.
struct AttentionJob {
  BlockTable table;
  int64_t query_begin;  // at least table.first_position
  int64_t num_queries;  // rows of the call, after those of the previous job
};

/// A query at position p sees positions max(table.first_position, start of p's chunk) to p. Head h of H uses head
/// h * G / H of the cache. out[r, h] = sum over positions of softmax(scale * q . k) * v.
struct AttentionProblem {
  CacheShape shape;
  CachePool pool;
  int64_t query_heads;  // H, a multiple of G
  int64_t chunk = 0;    // positions of a chunk; 0: one chunk
  float scale;          // such as 1 / sqrt(K); a factor of a row (temperature) is the caller's to apply
  const AttentionJob* jobs;
  int64_t num_jobs;
  const void* queries;   // row r of head h at r * query_stride + h * K elements, FP32 or BF16 bits
  int64_t query_stride;  // elements
  bool queries_bf16 = false;
  void* out;           // the same with out_stride; BF16 is rounded to nearest even
  int64_t out_stride;  // elements
  bool out_bf16 = false;
};

/// Bytes of workspace that attention() needs; any instruction set.
int64_t attention_workspace_bytes(const AttentionProblem& problem);

/// workspace: aligned to kCacheAlignment, overwritten; null where no bytes are needed. Calls parallel_for at most
/// twice.
void attention(const AttentionProblem& problem, Isa isa, std::byte* workspace, const ParallelFor& parallel_for);

/// "avx512_bf16" where BF16 has dots of its own, else the instruction set's name.
std::string_view attention_kernel_name(CacheType type, Isa isa);

/// Operations (multiplications and additions) of the dot that attention uses for a type, without loads; for benchmarks.
int64_t run_attention_dots(CacheType type, Isa isa, int64_t rounds);

}  // namespace puna::kernels
