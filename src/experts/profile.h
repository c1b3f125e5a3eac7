// What a profile of experts says, as `puna experts profile` writes it.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace puna::experts {

/// The rows that each expert got: [layers with experts][experts]. `experts`: how many each of these layers has. Throws
/// Error(`where`) when it is malformed or of another model.
std::vector<std::vector<int64_t>> profile_rows(const Json& profile, std::span<const size_t> experts,
                                               std::string_view where);

}  // namespace puna::experts
