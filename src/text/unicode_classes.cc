#include "text/unicode_classes.h"

#include <algorithm>
#include <iterator>
#include <vector>

namespace puna::text {
namespace {

constexpr uint32_t kRanges[] = {
#include "text/unicode_class_ranges.inc"
};

std::vector<CharClass> expand_ranges() {
  std::vector<CharClass> classes(kNumCodePoints);
  for (size_t i = 0; i < std::size(kRanges); ++i) {
    const uint32_t end = i + 1 < std::size(kRanges) ? kRanges[i + 1] >> 3 : kNumCodePoints;
    std::fill(classes.begin() + (kRanges[i] >> 3), classes.begin() + end, static_cast<CharClass>(kRanges[i] & 7));
  }
  return classes;
}

}  // namespace

const CharClass* char_classes() {
  static const std::vector<CharClass> classes = expand_ranges();
  return classes.data();
}

}  // namespace puna::text
