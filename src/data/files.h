// Records of files.
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "data/record.h"

namespace puna::data {

/// *.txt and *.md (one document each), *.jsonl (one record a line: {"text": ...}, {"messages": [...]} or {"text" with
/// <image> places, "images": [paths]}; docs/DATA.md has the forms). Directories are searched.
std::unique_ptr<RecordSource> open_files(const std::vector<std::filesystem::path>& paths);

}  // namespace puna::data
