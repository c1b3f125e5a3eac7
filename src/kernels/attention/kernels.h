// What attention() is made of: the plain form.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernels/attention/attention.h"

namespace puna::kernels {

/// The first position that a query sees.
inline int64_t first_visible(const AttentionProblem& p, const AttentionJob& job, int64_t position) {
  return std::max(job.table.first_position, p.chunk ? position / p.chunk * p.chunk : 0);
}

/// One row of the call and one query head.
void reference_attention(const AttentionProblem& p, const AttentionJob& job, int64_t row, int64_t head,
                         int64_t position);

}  // namespace puna::kernels
