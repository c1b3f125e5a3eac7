#include "quant/calibration.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "base/progress.h"
#include "engine/perplexity.h"
#include "ops/observe.h"

namespace puna::quant {
namespace {

constexpr double kDamping = 0.01;         // of the mean of the diagonal
constexpr double kSharedTokens = 64;      // an expert's own products weigh as its tokens against so many of the layer
constexpr int64_t kGramRowsAtOnce = 256;  // experts' small groups are multiplied in FP32

/// Sums over the tokens that one matrix saw.
struct Sums {
  int64_t tokens = 0;
  at::Tensor squares;   // [in] FP64
  at::Tensor products;  // [in, in] FP32; undefined: only the squares
};

int64_t inputs_of(const arch::ParamRow& row) { return row.shape[1]; }
int64_t experts_of(const arch::ParamRow& row) { return row.shape.size() == 3 ? row.shape[0] : 1; }

int64_t gram_bytes_of(const arch::ParamRow& row) {
  return experts_of(row) * inputs_of(row) * inputs_of(row) * int64_t{sizeof(float)};
}

/// Inputs are seen where LibTorch multiplies, not in the kernels.
engine::LoadOptions of_dense_weights(engine::LoadOptions options) {
  options.weights = model::WeightForm::kDense;
  return options;
}

}  // namespace

struct Calibration::Entry {
  bool with_products;
  std::shared_ptr<std::vector<Sums>> experts;  // one for a plain linear; rows of one input share it
};

class Calibration::Collector final : public ops::LinearObserver {
 public:
  void want(const arch::ParamRow& row, bool with_products) { entries_[row.name] = {with_products, nullptr}; }

  void linear(const ops::Weight& weight, const at::Tensor& x) override { see(weight.name, x, {0, x.size(0)}); }
  void grouped(const ops::Weight& weight, const at::Tensor& x, const std::vector<int64_t>& offsets) override {
    see(weight.name, x, offsets);
  }

  const std::vector<Sums>* find(const std::string& row) const {
    const auto found = entries_.find(row);
    return found == entries_.end() ? nullptr : found->second.experts.get();
  }
  bool wants(const std::string& row) const { return entries_.contains(row); }

 private:
  /// query, key and value take one tensor, gate and up too: it is looked at once.
  void see(const std::string& name, const at::Tensor& x, const std::vector<int64_t>& offsets) {
    const auto found = entries_.find(name);
    if (found == entries_.end()) return;
    Entry& entry = found->second;
    const bool again = last_x_.defined() && x.is_same(last_x_) && last_ && last_->with_products == entry.with_products;
    if (again && (!entry.experts || entry.experts == last_->experts)) {
      entry.experts = last_->experts;
      return;
    }
    if (!entry.experts) entry.experts = std::make_shared<std::vector<Sums>>(offsets.size() - 1);
    for (size_t e = 0; e + 1 < offsets.size(); ++e)
      if (const int64_t rows = offsets[e + 1] - offsets[e]; rows > 0)
        add((*entry.experts)[e], x.narrow(0, offsets[e], rows), entry.with_products);
    last_x_ = x, last_ = &entry;
  }

  static void add(Sums& sums, const at::Tensor& x, bool with_products) {
    const int64_t in = x.size(1);
    if (!sums.squares.defined()) {
      sums.squares = at::zeros({in}, at::kDouble);
      if (with_products) sums.products = at::zeros({in, in}, at::kFloat);
    }
    sums.tokens += x.size(0);
    for (int64_t row = 0; row < x.size(0); row += kGramRowsAtOnce) {
      const at::Tensor part = x.narrow(0, row, std::min(kGramRowsAtOnce, x.size(0) - row)).to(at::kCPU, at::kFloat);
      sums.squares.add_(part.square().sum(0, false, at::kDouble));
      if (with_products) sums.products.addmm_(part.t(), part);
    }
  }

  std::map<std::string, Entry> entries_;
  at::Tensor last_x_;
  const Entry* last_ = nullptr;
};

std::vector<arch::ParamRow> rows_to_calibrate(const arch::Llama4Config& config, const Rules& rules) {
  std::vector<arch::ParamRow> rows;
  for (const arch::ParamRow& row : arch::parameter_table(config))
    if (rules.of(row).quantised() && row.kind != arch::ParamKind::kVision && row.kind != arch::ParamKind::kProjector &&
        row.kind != arch::ParamKind::kEmbedding)
      rows.push_back(row);
  return rows;
}

Calibration::Calibration(const engine::LoadOptions& model, std::string_view text, std::vector<arch::ParamRow> rows,
                         const CalibrationOptions& options)
    : model_(engine::load_model(of_dense_weights(model))), rows_(std::move(rows)), options_(options) {
  tokens_ = model_.tokenizer->encode(text);
  if (tokens_.empty()) fail("--calibrate", "the text has no tokens");
  if (options_.gram_bytes == 0) options_.gram_bytes = available_memory_bytes() / 2;
}

Calibration::~Calibration() = default;

void Calibration::collect(size_t first) {
  const c10::InferenceMode guard;
  collector_ = std::make_unique<Collector>();
  int64_t left = options_.gram_bytes;
  size_t last = first;
  for (; last < rows_.size(); ++last) {
    const int64_t bytes = options_.with_products ? gram_bytes_of(rows_[last]) : 0;
    if (bytes > left && last > first) break;
    collector_->want(rows_[last], options_.with_products && bytes <= left);
    left -= std::min(left, bytes);
  }
  Progress progress(fmt::format("Calibrating rows {} to {} of {}", first + 1, last, rows_.size()),
                    static_cast<int64_t>(tokens_.size()));
  engine::PerplexityOptions pass;
  pass.context = options_.context;
  pass.cancel = options_.interrupt;
  pass.on_progress = [&](int64_t done) { progress.set(done); };
  const ops::Observing observing(*collector_);
  if (!engine::perplexity(model_, tokens_, pass)) throw Interrupted();
  for (size_t i = first; i < last; ++i) {
    const std::vector<Sums>* sums = collector_->find(rows_[i].name);
    if (!sums || rows_[i].shape.size() != 3) continue;
    for (size_t e = 0; e < sums->size(); ++e)
      if ((*sums)[e].tokens < options_.few_tokens)
        few_[fmt::format("layer {} expert {}", rows_[i].layer, e)] = (*sums)[e].tokens;
  }
}

namespace {

/// An expert's mean products (or squares) beside those of all the layer's experts.
template <class Get>
at::Tensor mean_of(const std::vector<Sums>& sums, size_t expert, Get get) {
  at::Tensor all;
  int64_t tokens = 0;
  for (const Sums& s : sums) {
    if (!get(s).defined()) continue;
    all = all.defined() ? all + get(s) : get(s).clone();
    tokens += s.tokens;
  }
  if (!all.defined() || sums.size() == 1) return all.defined() ? all / static_cast<double>(tokens) : all;
  const Sums& own = sums[expert];
  const double shared = kSharedTokens / static_cast<double>(tokens);
  all.mul_(shared);
  if (get(own).defined()) all.add_(get(own));
  return all / (static_cast<double>(own.tokens) + kSharedTokens);
}

/// Undefined when the products have no factor even with much damping.
at::Tensor inverse_factor(const at::Tensor& products) {
  at::Tensor damped = products.to(at::kDouble);
  const double mean = damped.diagonal().mean().item<double>();
  if (!(mean > 0)) return {};
  damped.diagonal().add_(kDamping * mean);
  const auto [lower, failed] = at::linalg_cholesky_ex(damped);
  if (failed.item<int>() != 0) return {};
  const auto [upper, failed_too] = at::linalg_cholesky_ex(at::cholesky_inverse(lower), /*upper=*/true);
  return failed_too.item<int>() == 0 ? upper.to(at::kFloat).contiguous() : at::Tensor();
}

}  // namespace

const InputStatistics& Calibration::of(const std::string& row, int64_t expert) {
  const std::string key = fmt::format("{} {}", row, expert);
  if (key == current_key_) return current_;
  if (!collector_ || !collector_->wants(row)) {
    const auto at = std::find_if(rows_.begin(), rows_.end(), [&](const auto& r) { return r.name == row; });
    PUNA_CHECK(at != rows_.end(), "'{}' was not to be calibrated", row);
    collect(static_cast<size_t>(at - rows_.begin()));
  }
  const c10::InferenceMode guard;
  current_ = {}, current_key_ = key;
  const std::vector<Sums>* sums = collector_->find(row);
  PUNA_CHECK(sums, "no token reached '{}'", row);
  const auto index = static_cast<size_t>(std::max<int64_t>(expert, 0));
  current_.tokens = (*sums)[index].tokens;
  const at::Tensor squares = mean_of(*sums, index, [](const Sums& s) -> const at::Tensor& { return s.squares; });
  if (!squares.defined()) return current_;
  const at::Tensor floats = squares.to(at::kFloat).contiguous();
  current_.importance.assign(floats.const_data_ptr<float>(), floats.const_data_ptr<float>() + floats.numel());
  const at::Tensor products = mean_of(*sums, index, [](const Sums& s) -> const at::Tensor& { return s.products; });
  if (products.defined()) current_.factor = inverse_factor(products);
  return current_;
}

std::vector<std::string> Calibration::warnings() const {
  std::vector<std::string> lines;
  for (const auto& [name, tokens] : few_) lines.push_back(fmt::format("{}: {} tokens", name, tokens));
  return lines;
}

}  // namespace puna::quant
