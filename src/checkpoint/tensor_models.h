// Models whose rows are in memory: drawn at random, or tensors that somebody holds.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "checkpoint/model_source.h"

namespace puna::checkpoint {

/// Random rows: norms 1, biases 0, matrices normal with deviation 1 / sqrt(fan in), those that write to the residual
/// stream (o_proj, down_proj, fc2) divided by sqrt(2 layers). Each row depends on the seed and its name alone.
std::unique_ptr<ModelSource> random_model(const arch::Llama4Config& config, uint64_t seed,
                                          double embedding_deviation = 0.02);

/// `tensors` by Puna's names, in the table's shapes; load() shares their storage where the dtype is the same. Throws
/// Error that lists the rows that are missing or of another shape.
std::unique_ptr<ModelSource> tensors_model(const arch::Llama4Config& config, std::map<std::string, at::Tensor> tensors);

}  // namespace puna::checkpoint
