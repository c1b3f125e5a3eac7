// The objects within a task file: the header's settings, and items.
#pragma once

#include <filesystem>
#include <string>

#include "base/json.h"
#include "eval/fields.h"
#include "eval/task.h"

namespace puna::eval {

/// The keys that header and items share.
const std::vector<std::string>& setting_keys();

/// Overwrites what `fields` gives of the settings.
void read_settings(const Fields& fields, Settings& settings);

/// One item, with `defaults` for what it does not say. `directory` is the task's, absolute and without links.
Item read_item(const Json& json, const std::string& where, int64_t line, const Settings& defaults,
               const std::filesystem::path& directory);

}  // namespace puna::eval
