// Llama 4's split pattern as a hand-written matcher: linear time, no stack, exact (tests compare it with PCRE2).
#pragma once

#include <string_view>

namespace puna::text {

/// The pattern that next_piece() implements, as tokenizer.json spells it.
extern const std::string_view kSplitPattern;

/// Bytes of the piece at the front of `text`, which must be non-empty valid UTF-8. Pieces lie end to end: every
/// character belongs to one.
size_t next_piece(std::string_view text);

}  // namespace puna::text
