// GGUF stores rope scaling as one divisor per frequency; Hugging Face as four numbers.
#pragma once

#include <optional>
#include <vector>

#include "arch/config.h"

namespace puna::arch {

/// f_j / f'_j for j < K/2: the divisors that llama3 scaling means (SPEC 3).
std::vector<double> factors_of_scaling(const RopeScaling& scaling, double theta, int64_t head_dim);

/// The llama3 scaling with the divisors config.rope_factors; nullopt when all are 1. Throws Error when there is none.
std::optional<RopeScaling> scaling_of_factors(const TextConfig& config);

}  // namespace puna::arch
