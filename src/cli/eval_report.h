// What `puna eval` shows: tables, JSON, per-item lines, the picture.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"
#include "eval/needle.h"
#include "eval/run.h"
#include "plot/figure.h"

namespace puna::cli {

/// One row for each measure of each task.
std::string tasks_table(const std::vector<eval::TaskResult>& results);
Json tasks_json(const std::vector<eval::TaskResult>& results);
/// One JSON object a line for each item that was done.
std::string items_lines(const eval::TaskResult& result);

/// Depths down, lengths across.
std::string needle_table(const eval::NeedleOptions& options, const eval::NeedleResult& result);
Json needle_json(const eval::NeedleOptions& options, const eval::NeedleResult& result);
std::string needle_lines(const eval::NeedleOptions& options, const eval::NeedleResult& result);
plot::Figure needle_figure(const eval::NeedleOptions& options, const eval::NeedleResult& result,
                           const std::string& model);

}  // namespace puna::cli
