#include "cli/eval_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace puna::cli {
namespace {

using eval::Measure;
using eval::TaskResult;

bool is_share(const Measure& measure) { return measure.name.starts_with("accuracy"); }

std::string value_text(const Measure& measure, double value) {
  return is_share(measure) ? fmt::format("{:.1f} %", 100 * value) : fmt::format("{:.4f}", value);
}

std::string interval_text(const Measure& measure) {
  if (!measure.interval) return "";
  const auto [low, high] = *measure.interval;
  return is_share(measure) ? fmt::format("{:.1f} .. {:.1f} %", 100 * low, 100 * high)
                           : fmt::format("{:.4f} .. {:.4f}", low, high);
}

std::string target_text(const TaskResult& result) {
  if (!result.task->threshold) return "";
  const double target = *result.task->threshold;
  const std::string text =
      result.task->is_perplexity() ? fmt::format("<= {}", target) : fmt::format(">= {:.4g} %", 100 * target);
  return result.met() ? text + (*result.met() ? " met" : " not met") : text;
}

std::string_view kind_text(const eval::Task& task) {
  const bool one = std::all_of(task.items.begin(), task.items.end(),
                               [&](const eval::Item& item) { return item.kind() == task.items.front().kind(); });
  return one ? eval::kind_name(task.items.front().kind()) : "mixed";
}

std::string items_text(const TaskResult& result) {
  return result.partial() ? fmt::format("{} of {}", result.outcomes.size(), result.task->items.size())
                          : std::to_string(result.outcomes.size());
}

using Row = std::vector<std::string>;

std::vector<Row> task_rows(const TaskResult& result) {
  const Measure none = {"-", 0, std::nullopt};
  const Measure& first = result.measures.empty() ? none : result.measures.front();
  std::vector<Row> rows = {{result.task->name, std::string(kind_text(*result.task)), items_text(result), first.name,
                            result.measures.empty() ? "-" : value_text(first, first.value), interval_text(first),
                            target_text(result), fmt::format("{:.1f}", result.seconds), result.task->title}};
  for (size_t i = 1; i < result.measures.size(); ++i) {
    const Measure& measure = result.measures[i];
    rows.push_back({"", "", "", measure.name, value_text(measure, measure.value), interval_text(measure), "", "", ""});
  }
  return rows;
}

// Columns as wide as their widest cell; those of `right` are set to the right. No spaces at the end of a line.
std::string aligned(const std::vector<Row>& rows, const std::vector<size_t>& right) {
  std::vector<size_t> widths(rows.front().size());
  for (const Row& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string out;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      if (widths[i] == 0) continue;
      const bool to_right = std::find(right.begin(), right.end(), i) != right.end();
      line += to_right ? fmt::format("{:>{}}", row[i], widths[i]) : fmt::format("{:<{}}", row[i], widths[i]);
      line += "  ";
    }
    out += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return out;
}

Json interval_json(const std::optional<eval::Interval>& interval) {
  return interval ? Json{interval->low, interval->high} : Json(nullptr);
}

Json expected_json(const eval::Item& item) {
  switch (item.kind()) {
    case eval::Kind::kMultipleChoice:
      return item.choices[item.right_choice];
    case eval::Kind::kExactMatch:
      return item.answers;
    case eval::Kind::kContains:
      return {{"contains", item.facts}, {"forbidden", item.forbidden}};
    case eval::Kind::kNumeric:
      return item.number;
    default:
      return nullptr;
  }
}

Json outcome_json(const eval::Task& task, const eval::Outcome& outcome) {
  const eval::Item& item = *outcome.item;
  Json json = {{"task", task.name},
               {"id", item.id},
               {"line", item.line},
               {"kind", eval::kind_name(item.kind())},
               {"prompt", eval::prompt_text(item)}};
  if (item.kind() == eval::Kind::kPerplexity) {
    json.update({{"nll", outcome.nll}, {"tokens", outcome.tokens}, {"bytes", outcome.bytes}});
    return json;
  }
  json.update({{"answer", outcome.answer}, {"expected", expected_json(item)}, {"right", outcome.right}});
  if (item.kind() == eval::Kind::kMultipleChoice)
    json.update({{"choices", item.choices},
                 {"log_likelihoods", outcome.log_likelihoods},
                 {"right_raw", outcome.right_raw},
                 {"right_normalised", outcome.right_per_byte}});
  else
    json.update({{"log_likelihood", outcome.log_likelihoods.front()}, {"tokens", outcome.tokens}});
  return json;
}

std::string json_line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n"; }

std::string depth_text(double depth) { return fmt::format("{:g} %", depth); }

std::string count_text(const eval::NeedleResult::Count& count) {
  if (count.total == 0) return "-";
  return fmt::format("{:.0f} %", 100.0 * static_cast<double>(count.right) / static_cast<double>(count.total));
}

}  // namespace

std::string tasks_table(const std::vector<TaskResult>& results) {
  std::vector<Row> rows = {{"task", "kind", "items", "measure", "value", "95 % interval", "target", "seconds", ""}};
  bool partial = false;
  for (const TaskResult& result : results) {
    for (Row& row : task_rows(result)) rows.push_back(std::move(row));
    partial |= result.partial();
  }
  return aligned(rows, {2, 4, 7}) + (partial ? "Partial: interrupted before all items were done.\n" : "");
}

Json tasks_json(const std::vector<TaskResult>& results) {
  Json list = Json::array();
  for (const TaskResult& result : results) {
    const eval::Task& task = *result.task;
    Json json = {{"name", task.name},
                 {"title", task.title},
                 {"file", task.file.string()},
                 {"kind", kind_text(task)},
                 {"items", result.outcomes.size()},
                 {"items_in_task", task.items.size()},
                 {"partial", result.partial()},
                 {"seconds", result.seconds},
                 {"measures", Json::object()},
                 {"target", task.threshold ? Json(*task.threshold) : Json(nullptr)},
                 {"met", result.met() ? Json(*result.met()) : Json(nullptr)}};
    for (const Measure& measure : result.measures)
      json["measures"][measure.name] = {{"value", measure.value}, {"interval", interval_json(measure.interval)}};
    list.push_back(std::move(json));
  }
  return list;
}

std::string items_lines(const TaskResult& result) {
  std::string out;
  for (const eval::Outcome& outcome : result.outcomes) out += json_line(outcome_json(*result.task, outcome));
  return out;
}

std::string needle_table(const eval::NeedleOptions& options, const eval::NeedleResult& result) {
  Row head = {"depth"};
  for (const int64_t length : options.lengths) head.push_back(fmt::format("{} tokens", length));
  std::vector<Row> rows = {head};
  std::vector<size_t> right = {0};
  for (size_t depth = 0; depth < options.depths.size(); ++depth) {
    Row row = {depth_text(options.depths[depth])};
    for (size_t length = 0; length < options.lengths.size(); ++length)
      row.push_back(count_text(result.count(length, depth)));
    rows.push_back(std::move(row));
  }
  for (size_t i = 0; i < options.lengths.size(); ++i) right.push_back(i + 1);
  const auto all = result.count();
  const auto [low, high] = eval::wilson(all.right, all.total);
  return aligned(rows, right) +
         fmt::format("found {} of {}: {} (95 % interval {:.1f} .. {:.1f} %), {:.1f} seconds\n", all.right, all.total,
                     count_text(all), 100 * low, 100 * high, result.seconds) +
         (result.partial ? "Partial: interrupted before all trials were done.\n" : "");
}

Json needle_json(const eval::NeedleOptions& options, const eval::NeedleResult& result) {
  Json cells = Json::array();
  for (size_t length = 0; length < options.lengths.size(); ++length)
    for (size_t depth = 0; depth < options.depths.size(); ++depth) {
      const auto count = result.count(length, depth);
      cells.push_back({{"length", options.lengths[length]},
                       {"depth", options.depths[depth]},
                       {"right", count.right},
                       {"trials", count.total}});
    }
  const auto all = result.count();
  return {{"cells", cells},
          {"right", all.right},
          {"trials", all.total},
          {"interval", interval_json(eval::wilson(all.right, all.total))},
          {"partial", result.partial},
          {"seconds", result.seconds}};
}

std::string needle_lines(const eval::NeedleOptions& options, const eval::NeedleResult& result) {
  std::string out;
  for (const eval::NeedleTrial& trial : result.trials)
    out += json_line({{"length", options.lengths[trial.length_index]},
                      {"depth", options.depths[trial.depth_index]},
                      {"prompt_tokens", trial.prompt_tokens},
                      {"prompt", trial.needle.text},
                      {"answer", trial.answer},
                      {"expected", trial.needle.value},
                      {"right", trial.right}});
  return out;
}

plot::Figure needle_figure(const eval::NeedleOptions& options, const eval::NeedleResult& result,
                           const std::string& model) {
  plot::HeatMap map;
  map.title = "Needle in a haystack";
  map.x_label = "length of the prompt (tokens)";
  map.y_label = "depth of the fact";
  map.value_label = "found (%)";
  for (const int64_t length : options.lengths) map.columns.push_back(std::to_string(length));
  for (size_t depth = 0; depth < options.depths.size(); ++depth) {
    map.rows.push_back(depth_text(options.depths[depth]));
    for (size_t length = 0; length < options.lengths.size(); ++length) {
      const auto count = result.count(length, depth);
      map.values.push_back(count.total == 0
                               ? std::numeric_limits<double>::quiet_NaN()
                               : 100.0 * static_cast<double>(count.right) / static_cast<double>(count.total));
    }
  }
  map.min = 0;
  map.max = 100;
  map.show_values = true;
  plot::Figure figure;
  figure.title = model;
  figure.panels = {std::move(map)};
  return figure;
}

}  // namespace puna::cli
