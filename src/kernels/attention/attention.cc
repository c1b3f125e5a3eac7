#include "kernels/attention/attention.h"

#include <vector>

#include "base/error.h"
#include "kernels/attention/kernels.h"

namespace puna::kernels {
namespace {

struct Row {
  int64_t job, position;
};

std::vector<Row> rows_of(const AttentionProblem& p) {
  std::vector<Row> rows;
  for (int64_t j = 0; j < p.num_jobs; ++j) {
    const AttentionJob& job = p.jobs[j];
    PUNA_CHECK(job.table.first_position % p.shape.block_size == 0 && job.query_begin >= job.table.first_position,
               "attention: queries from {} with blocks from {}", job.query_begin, job.table.first_position);
    for (int64_t i = 0; i < job.num_queries; ++i) rows.push_back({j, job.query_begin + i});
  }
  return rows;
}

}  // namespace

int64_t attention_workspace_bytes(const AttentionProblem&) { return 0; }

void attention(const AttentionProblem& p, Isa, std::byte*, const ParallelFor& parallel_for) {
  PUNA_CHECK(p.query_heads > 0 && p.query_heads % p.shape.kv_heads == 0, "attention: {} query heads, {} of the cache",
             p.query_heads, p.shape.kv_heads);
  const std::vector<Row> rows = rows_of(p);
  parallel_for(static_cast<int64_t>(rows.size()) * p.query_heads, [&](int64_t i) {
    const int64_t row = i / p.query_heads;
    reference_attention(p, p.jobs[rows[row].job], row, i % p.query_heads, rows[row].position);
  });
}

}  // namespace puna::kernels
