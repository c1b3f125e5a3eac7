// What a training run wrote into its metrics.jsonl, as numbers to draw.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace puna::plot {

struct Curve {
  std::vector<double> steps, values;  // [records]; a value may be NaN
};

/// One number per expert over time, in at most kMaxColumns columns: neighbours are averaged when there are more.
class ExpertHistory {
 public:
  static constexpr size_t kMaxColumns = 240;
  struct Column {
    double step = 0;  // the first one in it
    std::vector<double> sums;
    int64_t count = 0;
  };

  void add(double step, const std::vector<double>& values);
  const std::vector<Column>& columns() const { return columns_; }

 private:
  std::vector<Column> columns_;
  int64_t per_column_ = 1;
};

struct LayerMetrics {
  ExpertHistory load;           // shares of the layer's routed tokens, of which 1 is what is even
  ExpertHistory image_share;    // of each expert's tokens
  Curve entropy, load_entropy;  // of the router's choice, mean over tokens; of the load
  Curve max_violation;
};

struct RunMetrics {
  std::string name;
  Curve loss, eval_loss, grad_norm, learning_rate;
  std::map<std::string, Curve> source_loss, eval_source_loss;  // by source
  std::map<int64_t, LayerMetrics> layers;                      // by layer
  std::vector<std::vector<double>> position_loss;      // [the last 20 records][bucket: from position 2^bucket on]
  std::vector<std::pair<double, std::string>> stages;  // first step of each
  std::vector<std::string> notes;                      // what was passed over, for people
};

/// Reads <run>/metrics.jsonl, or a file of that kind: one JSON object per line with a "step". Keys that are not drawn
/// are passed over, as is a last line that is cut short (with a note). Of a step that comes twice, the later one
/// counts. Throws Error with the line's number for anything else, and for files over 4 GiB.
RunMetrics read_run(const std::filesystem::path& run);

}  // namespace puna::plot
