#include "quant/report.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "base/error.h"
#include "base/memory.h"

namespace puna::quant {
namespace fs = std::filesystem;

Json reports_json(const std::vector<TensorReport>& reports) {
  Json json = Json::array();
  for (const TensorReport& r : reports)
    json.push_back({{"name", r.name},
                    {"part", r.part},
                    {"format", r.format},
                    {"shape", r.shape},
                    {"source_bytes", r.source_bytes},
                    {"bytes", r.bytes},
                    {"squared_error", r.squared_error},
                    {"squared_norm", r.squared_norm},
                    {"relative_error", r.relative_error()}});
  return json;
}

namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 50;  // sums of a file's tensors stay far from overflow

int64_t count_of(const Json& json) {
  if (!json.is_number_integer() || json < 0 || json > kMaxBytes) throw std::out_of_range("no count of bytes");
  return json.get<int64_t>();
}

double sum_of(const Json& json) {
  const double value = json.get<double>();
  if (!(value >= 0) || !std::isfinite(value)) throw std::out_of_range("no sum of squares");
  return value;
}

TensorReport report_from(const Json& r) {
  TensorReport report{r.at("name"),
                      r.at("part"),
                      r.at("format"),
                      {},
                      count_of(r.at("source_bytes")),
                      count_of(r.at("bytes")),
                      sum_of(r.at("squared_error")),
                      sum_of(r.at("squared_norm"))};
  for (const Json& extent : r.at("shape")) report.shape.push_back(count_of(extent));
  return report;
}

}  // namespace

std::vector<TensorReport> reports_from(const Json& json, const fs::path& dir) {
  std::vector<TensorReport> reports;
  try {
    for (const Json& r : json) reports.push_back(report_from(r));
  } catch (const std::exception&) {
    fail(dir.string(), "quantize_state.json is damaged; remove the directory and begin anew");
  }
  return reports;
}

double TensorReport::relative_error() const { return squared_norm > 0 ? std::sqrt(squared_error / squared_norm) : 0; }

Json QuantiseReport::json() const {
  int64_t bytes = 0, source_bytes = 0;
  for (const TensorReport& tensor : tensors) bytes += tensor.bytes, source_bytes += tensor.source_bytes;
  Json json = {{"source_bytes", source_bytes},
               {"bytes", bytes},
               {"kept", kept},
               {"wider", wider},
               {"tensors", reports_json(tensors)}};
  if (rare) json["rare_experts"] = rare->json();
  return json;
}

std::string QuantiseReport::text() const {
  struct Line {
    std::string part, format;
    int64_t tensors = 0;
    TensorReport sum, worst;
  };
  std::vector<Line> lines;
  TensorReport total;
  for (const TensorReport& t : tensors) {
    auto line = std::find_if(lines.begin(), lines.end(),
                             [&](const Line& l) { return l.part == t.part && l.format == t.format; });
    if (line == lines.end())
      line = lines.insert(lines.end(), Line{.part = t.part, .format = t.format, .sum = {}, .worst = {}});
    ++line->tensors;
    for (TensorReport* sum : {&line->sum, &total})
      sum->source_bytes += t.source_bytes, sum->bytes += t.bytes, sum->squared_error += t.squared_error,
          sum->squared_norm += t.squared_norm;
    if (t.relative_error() > line->worst.relative_error()) line->worst = t;
  }
  std::string out = fmt::format("{:<15} {:<15} {:>8} {:>12} {:>12} {:>9} {:>9}  {}\n", "part", "format", "tensors",
                                "before", "after", "error", "worst", "in");
  for (const Line& l : lines) {
    out += fmt::format("{:<15} {:<15} {:>8} {:>12} {:>12}", l.part, l.format, l.tensors,
                       format_bytes(l.sum.source_bytes), format_bytes(l.sum.bytes));
    if (l.sum.squared_norm > 0)
      out += fmt::format(" {:>8.3f}% {:>8.3f}%  {}", 100 * l.sum.relative_error(), 100 * l.worst.relative_error(),
                         l.worst.name);
    out += "\n";
  }
  return out +
         fmt::format("{:<40} {:>12} {:>12}\n", "total", format_bytes(total.source_bytes), format_bytes(total.bytes)) +
         (rare ? rare->text() : "");
}

}  // namespace puna::quant
