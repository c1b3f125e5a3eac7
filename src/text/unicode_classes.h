// Character classes of the split pattern (SPEC 7): what \p{..} and \s mean to the tiktoken library's regex engine.
#pragma once

#include <cstdint>

namespace puna::text {

enum class CharClass : uint8_t {
  kOther,    // none of the below: punctuation, symbols, controls, unassigned
  kUpper,    // \p{Lu} \p{Lt}
  kLower,    // \p{Ll}
  kLetter,   // \p{Lm} \p{Lo}: counts as upper and as lower case
  kMark,     // \p{M}: as kLetter inside a word, as kOther outside
  kNumber,   // \p{N}
  kSpace,    // \s other than the two below
  kNewline,  // \r \n
};

inline constexpr uint32_t kNumCodePoints = 0x110000;

/// The class of each of the kNumCodePoints code points.
const CharClass* char_classes();

/// Python's str.isspace(): \s and the four separators U+001C to U+001F.
inline bool is_python_space(uint32_t code_point, const CharClass* classes) {
  return classes[code_point] >= CharClass::kSpace || (code_point >= 0x1C && code_point <= 0x1F);
}

}  // namespace puna::text
