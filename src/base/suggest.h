// "Did you mean ...?" for unknown names.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace puna {

/// The candidate with the least edit distance to `name`, if it is close enough to be a typo: a third of the length or
/// 2, in up to 3 characters 1. Empty when none is.
std::string nearest_name(std::string_view name, std::span<const std::string> candidates);

}  // namespace puna
