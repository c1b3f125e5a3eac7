// TOML as JSON. Internal to src/train.
#pragma once

#include <string>
#include <string_view>

#include "base/json.h"

namespace puna::train {

/// Tables, arrays, strings, booleans and finite numbers; dates are refused. Throws Error with the line.
Json parse_toml(std::string_view text, std::string_view where);

/// The value of "key=value" on a command line: TOML where it is TOML, else a string. Throws Error(`where`).
Json parse_toml_value(std::string_view text, std::string_view where);

}  // namespace puna::train
