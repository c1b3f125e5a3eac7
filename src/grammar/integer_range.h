// Integers of a range in decimal, as an expression.
#pragma once

#include <cstdint>
#include <optional>

#include "grammar/source.h"

namespace puna::grammar {

/// The decimal spellings, without leading zeros or "-0", of the integers from `least` to `most`; an absent end is that
/// of `max_digits` nines. Of an empty range: no text.
ExprId integer_range(Source& source, std::optional<int64_t> least, std::optional<int64_t> most, uint32_t max_digits);

}  // namespace puna::grammar
