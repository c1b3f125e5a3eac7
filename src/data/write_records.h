// Records to files that open_files() reads back.
#pragma once

#include <filesystem>
#include <string>

#include "data/record.h"

namespace puna::data {

/// Writes <dir>/<name>.jsonl and the records' images in <dir>/<name>-images/; the JSONL file comes last, whole. Returns
/// the number of records. Throws Error when the file is there, and for a record that JSONL has no form for.
int64_t write_records(RecordSource& records, const std::filesystem::path& dir, const std::string& name);

}  // namespace puna::data
