#include "bench/run.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "arch/layer_plan.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "model/batch.h"
#include "model/paged_cache.h"

namespace puna::bench {
namespace {

constexpr int64_t kStepsOfRound = 3;  // decoded tokens of a sequence, so that one step's noise does not decide
constexpr int64_t kPieceTokens = 2048;

int64_t blocks_for(int64_t positions) {
  return (positions + model::PagedCache::kPositions - 1) / model::PagedCache::kPositions;
}

/// Sequences of one length in a cache of their own, each with blocks one after the other.
class Sequences {
 public:
  /// Room for `positions` of each, of which the step that is to come starts at `first`.
  Sequences(const arch::TextConfig& config, const model::PageFormat& format, int64_t count, int64_t first,
            int64_t positions)
      : chunk_(config.attention_chunk_size),
        chunk_begin_(chunk_ > 0 ? first / chunk_ * chunk_ : 0),
        global_each_(blocks_for(positions)),
        chunk_each_(blocks_for(positions - chunk_begin_)),
        global_(static_cast<size_t>(count * global_each_)),
        chunked_(static_cast<size_t>(count * chunk_each_)),
        pages_(config, format, count * global_each_, count * chunk_each_) {
    std::iota(global_.begin(), global_.end(), 0);
    std::iota(chunked_.begin(), chunked_.end(), 0);
  }

  model::PagedCache& pages() { return pages_; }

  model::PageTable table(int64_t sequence, int64_t length) const {
    const int64_t base = chunk_ > 0 ? length / chunk_ * chunk_ : 0, skipped = (base - chunk_begin_) / kPositions;
    const std::span<const int32_t> global(global_), chunked(chunked_);
    model::PageTable table;
    table.global = global.subspan(static_cast<size_t>(sequence * global_each_), static_cast<size_t>(global_each_));
    table.chunk = chunked.subspan(static_cast<size_t>(sequence * chunk_each_ + skipped),
                                  static_cast<size_t>(chunk_each_ - skipped));
    table.chunk_base = base;
    table.length = length;
    return table;
  }

  /// Random keys and values of the positions before `length` that a step there sees.
  void fill(const arch::TextConfig& config, int64_t count, int64_t length) {
    for (int64_t begin = 0; begin < length; begin += kPieceTokens) {
      const int64_t rows = std::min(kPieceTokens, length - begin);
      const at::Tensor values =
          at::randn({rows, config.num_key_value_heads, config.head_dim}).to(pages_.format().dtype);
      for (int64_t i = 0; i < count; ++i)
        for (int layer = 0; layer < pages_.num_layers(); ++layer) {
          const int64_t skipped = pages_.chunked(layer) ? std::clamp<int64_t>(chunk_begin_ - begin, 0, rows) : 0;
          if (skipped == rows) continue;
          model::PageTable at = table(i, length);
          at.length = begin + skipped;
          const at::Tensor stored = values.narrow(0, skipped, rows - skipped);
          pages_.store(layer, at, stored, stored);
        }
    }
  }

 private:
  static constexpr int64_t kPositions = model::PagedCache::kPositions;
  int64_t chunk_, chunk_begin_, global_each_, chunk_each_;
  std::vector<int32_t> global_, chunked_;
  model::PagedCache pages_;
};

class Runner {
 public:
  Runner(const model::Model& model, const model::PageFormat& format, const RunOptions& options)
      : model_(model),
        format_(format),
        wall_time_(options.wall_time || model.expert_store() != nullptr),  // waiting for experts counts
        threads_(options.threads),
        random_(options.seed) {}

  /// Seconds of wall time for the case, once.
  double seconds(const Case& what) { return what.kind == Case::Kind::kPrompt ? prompt(what) : decode(what); }

  /// Forward passes in it.
  static double steps(const Case& what) {
    return what.kind == Case::Kind::kPrompt ? 1 : static_cast<double>(kStepsOfRound);
  }

 private:
  at::Tensor random_tokens(int64_t count) {
    at::Tensor tokens = at::empty({count}, at::kLong);
    std::uniform_int_distribution<int64_t> pick(0, model_.config().text.vocab_size - 1);
    for (int64_t i = 0; i < count; ++i) tokens.data_ptr<int64_t>()[i] = pick(random_);
    return tokens;
  }

  double timed(const std::function<void()>& work) const {
    return wall_time_ ? wall_seconds_of(work) : seconds_of(threads_, work);
  }

  double prompt(const Case& what) {
    const arch::TextConfig& config = model_.config().text;
    Sequences sequences(config, format_, 1, 0, what.length);
    const at::Tensor tokens = random_tokens(what.length);
    return timed([&] {
      for (int64_t done = 0, count = 0; done < what.length; done += count) {
        count = std::min(kPieceTokens, what.length - done);
        if (const int64_t chunk = config.attention_chunk_size; chunk > 0) count = std::min(count, chunk - done % chunk);
        model::Batch batch;
        batch.tokens = tokens.narrow(0, done, count);
        batch.sequence_begin = {0, count};
        batch.first_position = {done};
        batch.pages = &sequences.pages();
        batch.tables = {sequences.table(0, done)};
        batch.output_rows = at::tensor({count - 1}, at::kLong);
        model_.forward(batch);
      }
    });
  }

  double decode(const Case& what) {
    const arch::TextConfig& config = model_.config().text;
    Sequences sequences(config, format_, what.batch, what.length, what.length + kStepsOfRound);
    sequences.fill(config, what.batch, what.length);
    double total = 0;
    for (int64_t step = 0; step < kStepsOfRound; ++step) {
      model::Batch batch;
      batch.tokens = random_tokens(what.batch);
      batch.sequence_begin.resize(static_cast<size_t>(what.batch) + 1);
      std::iota(batch.sequence_begin.begin(), batch.sequence_begin.end(), 0);
      batch.first_position.assign(static_cast<size_t>(what.batch), what.length + step);
      batch.pages = &sequences.pages();
      for (int64_t i = 0; i < what.batch; ++i) batch.tables.push_back(sequences.table(i, what.length + step));
      total += timed([&] { model_.forward(batch); });
    }
    return total / static_cast<double>(kStepsOfRound);
  }

  const model::Model& model_;
  model::PageFormat format_;
  bool wall_time_;
  int64_t threads_;
  std::mt19937_64 random_;
};

}  // namespace

RunResult run_cases(const model::Model& model, const model::PageFormat& format, const RunOptions& options) {
  const at::InferenceMode inference;
  const ModelWork work = work_of(model, format);
  const ReadProbe probe;
  Runner runner(model, format, options);
  std::vector<double> bandwidths, int8, bf16;
  std::vector<std::vector<double>> rates(options.cases.size()), fractions(options.cases.size());
  RunResult result;
  result.integer = work.integer;
  for (const Case& what : options.cases) result.cases.push_back({.what = what, .work = work_of(work, what)});
  const auto disk_bytes = [&] { return model.expert_store() ? model.expert_store()->statistics().bytes_read : 0; };

  Progress progress("Measuring", (options.rounds + 1) * std::ssize(options.cases));
  for (int64_t round = -1; round < options.rounds; ++round) {
    if (options.before_round) options.before_round();
    for (size_t i = 0; i < options.cases.size(); ++i) {
      stop_if_interrupted(options.interrupt);
      const Case& what = options.cases[i];
      const double bandwidth = probe.measure(options.threads), peak = int8_peak(options.threads),
                   products = bf16_product_rate();
      const int64_t before = disk_bytes();
      const double seconds = runner.seconds(what);
      const double read = static_cast<double>(disk_bytes() - before) / runner.steps(what);
      progress.add(1);
      if (round < 0) continue;
      bandwidths.push_back(bandwidth), int8.push_back(peak), bf16.push_back(products);
      const Limits limits = {bandwidth, work.integer ? peak : products};
      CaseResult& one = result.cases[i];
      one.disk_bytes += read / static_cast<double>(options.rounds);
      double bound = bound_seconds(one.work, limits, &one.bound);
      if (options.disk_bandwidth > 0 && read / options.disk_bandwidth > bound)
        bound = read / options.disk_bandwidth, one.bound = "disk";
      rates[i].push_back(static_cast<double>(what.tokens()) / seconds);
      fractions[i].push_back(bound / seconds);
    }
  }
  result.read_bandwidth = Spread(bandwidths), result.int8_peak = Spread(int8), result.bf16_products = Spread(bf16);
  for (size_t i = 0; i < options.cases.size(); ++i)
    result.cases[i].tokens_per_second = Spread(rates[i]), result.cases[i].fraction = Spread(fractions[i]);
  return result;
}

}  // namespace puna::bench
