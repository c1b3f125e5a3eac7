#include "plot/run_metrics.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "io/file.h"

namespace puna::plot {
namespace fs = std::filesystem;
namespace {

constexpr size_t kMaxFileBytes = size_t{4} << 30, kMaxLineBytes = size_t{16} << 20;
constexpr size_t kMaxExperts = 4096, kMaxLayers = 1024, kMaxSources = 256, kPositionRecords = 20, kMaxBuckets = 64;

/// Both numbers and null, which is how JSON writes what is not finite.
double number(const Json& value, const char* key, std::string_view where) {
  if (value.is_null()) return std::numeric_limits<double>::quiet_NaN();
  if (!value.is_number()) fail(where, "'{}' must be a number", key);
  return value.get<double>();
}

std::vector<double> numbers(const Json& value, const char* key, std::string_view where) {
  if (!value.is_array()) fail(where, "'{}' must be an array of numbers", key);
  std::vector<double> out;
  for (const Json& entry : value) out.push_back(number(entry, key, where));
  return out;
}

void add(Curve& curve, double step, double value) {
  while (!curve.steps.empty() && curve.steps.back() >= step) {
    curve.steps.pop_back();
    curve.values.pop_back();
  }
  curve.steps.push_back(step);
  curve.values.push_back(value);
}

/// Takes up one line's object.
class Record {
 public:
  Record(const Json& json, std::string_view where, RunMetrics& run) : json_(json), where_(where), run_(run) {
    if (!json.is_object()) fail(where, "a line must be a JSON object");
    const auto step = json.find("step");
    if (step == json.end() || !step->is_number()) fail(where, "lacks the number 'step'");
    step_ = step->get<double>();
  }

  void read() {
    curve(json_, "loss", run_.loss);
    curve(json_, "grad_norm", run_.grad_norm);
    curve(json_, "learning_rate", run_.learning_rate);
    stage();
    sources(json_, run_.source_loss);
    if (const Json* experts = find(json_, "experts")) layers(*experts);
    const Json* eval = find(json_, "eval");
    if (eval && !eval->is_object()) fail(where_, "'eval' must be an object");
    if (eval) {
      curve(*eval, "loss", run_.eval_loss);
      sources(*eval, run_.eval_source_loss);
    }
    position();
  }

 private:
  static const Json* find(const Json& object, const char* key) {
    const auto found = object.find(key);
    return found == object.end() ? nullptr : &*found;
  }

  void curve(const Json& object, const char* key, Curve& to) const {
    if (const Json* value = find(object, key)) add(to, step_, number(*value, key, where_));
  }

  void stage() {
    const Json* stage = find(json_, "stage");
    if (!stage) return;
    if (!stage->is_string()) fail(where_, "'stage' must be a string");
    const auto& name = stage->get_ref<const std::string&>();
    if (run_.stages.empty() || run_.stages.back().second != name) run_.stages.emplace_back(step_, name);
  }

  void sources(const Json& object, std::map<std::string, Curve>& to) const {
    const Json* losses = find(object, "source_loss");
    if (!losses) return;
    if (!losses->is_object()) fail(where_, "'source_loss' must be an object of numbers");
    for (const auto& [name, value] : losses->items()) {
      if (to.size() >= kMaxSources && !to.contains(name)) fail(where_, "there are more than {} sources", kMaxSources);
      add(to[name], step_, number(value, "source_loss", where_));
    }
  }

  void layers(const Json& experts) {
    if (!experts.is_array()) fail(where_, "'experts' must be an array of objects");
    for (const Json& entry : experts) {
      const Json* index = entry.is_object() ? find(entry, "layer") : nullptr;
      if (!index || !index->is_number_unsigned() || index->get<uint64_t>() >= kMaxLayers)
        fail(where_, "an entry of 'experts' lacks 'layer', a whole number below {}", kMaxLayers);
      LayerMetrics& layer = run_.layers[static_cast<int64_t>(index->get<uint64_t>())];
      curve(entry, "entropy", layer.entropy);
      curve(entry, "load_entropy", layer.load_entropy);
      curve(entry, "max_violation", layer.max_violation);
      if (const Json* load = find(entry, "load")) {
        auto values = per_expert(*load, "load");
        const double even = std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
        for (double& value : values) value /= even;
        layer.load.add(step_, values);
      }
      if (const Json* share = find(entry, "image_share"))
        layer.image_share.add(step_, per_expert(*share, "image_share"));
    }
  }

  std::vector<double> per_expert(const Json& value, const char* key) const {
    auto out = numbers(value, key, where_);
    if (out.empty() || out.size() > kMaxExperts)
      fail(where_, "'{}' has {} experts, expected 1 to {}", key, out.size(), kMaxExperts);
    return out;
  }

  void position() {
    const Json* losses = find(json_, "position_loss");
    if (!losses) return;
    auto& kept = run_.position_loss;
    kept.push_back(numbers(*losses, "position_loss", where_));
    if (kept.back().size() > kMaxBuckets) fail(where_, "'position_loss' has more than {} buckets", kMaxBuckets);
    if (kept.size() > kPositionRecords) kept.erase(kept.begin());
  }

  const Json& json_;
  std::string_view where_;
  RunMetrics& run_;
  double step_ = 0;
};

}  // namespace

void ExpertHistory::add(double step, const std::vector<double>& values) {
  while (!columns_.empty() && (columns_.back().step >= step || columns_.back().sums.size() != values.size()))
    columns_.pop_back();
  if (columns_.empty()) per_column_ = 1;
  if (columns_.empty() || columns_.back().count >= per_column_) {
    if (columns_.size() == kMaxColumns) {
      for (size_t i = 0; i < kMaxColumns / 2; ++i) {
        Column merged = std::move(columns_[2 * i]);
        const Column& next = columns_[2 * i + 1];
        for (size_t e = 0; e < merged.sums.size(); ++e) merged.sums[e] += next.sums[e];
        merged.count += next.count;
        columns_[i] = std::move(merged);
      }
      columns_.resize(kMaxColumns / 2);
      per_column_ *= 2;
    }
    columns_.push_back({step, std::vector<double>(values.size()), 0});
  }
  Column& column = columns_.back();
  for (size_t e = 0; e < values.size(); ++e) column.sums[e] += values[e];
  ++column.count;
}

RunMetrics read_run(const fs::path& run) {
  std::error_code ec;
  const fs::path path = fs::is_directory(run, ec) ? run / "metrics.jsonl" : run;
  if (!io::path_exists(path)) fail(path.string(), "is missing; give the directory of a training run that has begun");
  const auto file = io::MappedFile::open(path);
  const size_t size = file->bytes().size();
  if (size > kMaxFileBytes) fail(path.string(), "has {} bytes, more than the limit of {}", size, kMaxFileBytes);
  std::string_view rest(reinterpret_cast<const char*>(file->bytes().data()), size);

  RunMetrics metrics;
  metrics.name = run.string();
  Progress progress("Reading " + path.string(), static_cast<int64_t>(size), Progress::Unit::kBytes);
  for (int64_t line_number = 1; !rest.empty(); ++line_number) {
    const size_t end = rest.find('\n');
    const std::string_view line = rest.substr(0, end);
    const std::string where = fmt::format("{}:{}", path.string(), line_number);
    if (line.size() > kMaxLineBytes) fail(where, "has {} bytes, more than the limit of {}", line.size(), kMaxLineBytes);
    if (end == rest.npos && !Json::accept(line)) {
      metrics.notes.push_back(fmt::format("{} is cut short and was passed over", where));
      break;
    }
    if (line.find_first_not_of(" \t\r") != line.npos) {
      const Json json = parse_json(line, where);
      Record(json, where, metrics).read();
    }
    progress.add(static_cast<int64_t>(std::min(line.size() + 1, rest.size())));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
  }
  return metrics;
}

}  // namespace puna::plot
