// Records as lines of JSON; docs/DATA.md has the forms.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "data/record.h"

namespace puna::data {

/// Gives the bytes of the image at a path that a record names; throws Error when it may not or cannot be read.
using ReadImage = std::function<std::string(const std::string& path)>;

/// One line of a JSONL file. `where` names file and line in errors and becomes the record's id. Throws Error on
/// malformed JSON, unknown keys (naming the nearest), wrong types, and images that do not fit their places.
Record parse_record(std::string_view line, std::string where, const ReadImage& read_image);

}  // namespace puna::data
