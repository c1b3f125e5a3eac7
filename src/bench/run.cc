#include "bench/run.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "arch/layer_plan.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "model/batch.h"
#include "model/paged_cache.h"

namespace puna::bench {
namespace {

constexpr int64_t kPieceTokens = 2048;
constexpr int64_t kDiskBytes = int64_t{1} << 30;  // read for a measurement

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
        options_(options),
        wall_time_(options.wall_time || model.expert_store() != nullptr),  // waiting for experts counts
        codes_(model.config().text),
        has_codes_(has_codes(model, codes_)) {
    if (options.routing == Routing::kZipf && !has_codes_)
      fail("--routing zipf", "is for models whose routing is known; puna bench make writes one");
  }

  /// Seconds of wall time for the case, once.
  double seconds(const Case& what) {
    hit_ = 0;
    return what.kind == Case::Kind::kPrompt ? prompt(what) : decode(what);
  }

  /// Forward passes in it.
  double steps(const Case& what) const {
    return static_cast<double>(what.kind == Case::Kind::kPrompt ? 1 : options_.steps);
  }

  /// Distinct experts of a layer in a step of the last case; absent where the model's routing is not known.
  std::optional<double> experts_hit() const { return has_codes_ ? std::optional(hit_) : std::nullopt; }

  std::string routing() const {
    if (options_.routing == Routing::kZipf)
      return fmt::format("Zipf, exponent 1, over the experts of a layer; 3 of 4 tokens in runs of {} share theirs",
                         TokenStream::kRun);
    return has_codes_ ? "uniform" : "that of random tokens";
  }

 private:
  /// The next token of each sequence; for a prompt the next `count` of the first.
  at::Tensor tokens(int64_t sequences, int64_t count) {
    while (std::ssize(streams_) < sequences)
      streams_.emplace_back(codes_, options_.routing, options_.seed * 1000 + streams_.size());
    const at::Tensor tokens = at::empty({sequences * count}, at::kLong);
    int64_t* out = tokens.mutable_data_ptr<int64_t>();
    for (int64_t i = 0; i < sequences * count; ++i) out[i] = streams_[static_cast<size_t>(i / count)].next();
    return tokens;
  }

  void count_experts(const at::Tensor& tokens, double steps) {
    hit_ += codes_.experts_hit({tokens.const_data_ptr<int64_t>(), static_cast<size_t>(tokens.numel())}) / steps;
  }

  double timed(const std::function<void()>& work) const {
    return wall_time_ ? wall_seconds_of(work) : seconds_of(options_.threads, work);
  }

  double prompt(const Case& what) {
    const arch::TextConfig& config = model_.config().text;
    Sequences sequences(config, format_, 1, 0, what.length);
    const at::Tensor tokens = this->tokens(1, what.length);
    count_experts(tokens, 1);
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
    Sequences sequences(config, format_, what.batch, what.length, what.length + options_.steps);
    sequences.fill(config, what.batch, what.length);
    double total = 0;
    for (int64_t step = 0; step < options_.steps; ++step) {
      stop_if_interrupted(options_.interrupt);
      model::Batch batch;
      batch.tokens = tokens(what.batch, 1);
      count_experts(batch.tokens, steps(what));
      batch.sequence_begin.resize(static_cast<size_t>(what.batch) + 1);
      std::iota(batch.sequence_begin.begin(), batch.sequence_begin.end(), 0);
      batch.first_position.assign(static_cast<size_t>(what.batch), what.length + step);
      batch.pages = &sequences.pages();
      for (int64_t i = 0; i < what.batch; ++i) batch.tables.push_back(sequences.table(i, what.length + step));
      total += timed([&] { model_.forward(batch); });
    }
    return total / steps(what);
  }

  const model::Model& model_;
  model::PageFormat format_;
  const RunOptions& options_;
  bool wall_time_;
  RoutingCodes codes_;
  bool has_codes_;
  std::vector<TokenStream> streams_;  // of the sequences, which go on from case to case
  double hit_ = 0;
};

/// Adds what the store did between two looks at it, as shares of `steps`.
void add_use(std::optional<DiskUse>& sum, const experts::StoreStatistics& before, const experts::StoreStatistics& after,
             double steps) {
  DiskUse& use = sum ? *sum : sum.emplace();
  const auto part = [&](auto field) { return static_cast<double>(after.*field - before.*field) / steps; };
  using Statistics = experts::StoreStatistics;
  const double ahead = part(&Statistics::useful_prefetches);
  use.uses += part(&Statistics::uses);
  use.in_memory += part(&Statistics::hits) - ahead;
  use.read_ahead += ahead;
  use.read_bytes += part(&Statistics::bytes_read);
  use.missed_bytes += part(&Statistics::bytes_missed);
  use.stall_seconds += part(&Statistics::stall_seconds);
}

/// What the rounds of a run add to one another.
struct Measured {
  std::vector<double> bandwidths, int8, bf16, disk;
  std::vector<std::vector<double>> rates, fractions;  // [cases]
  std::vector<double> hit;                            // [cases] sums of experts

  explicit Measured(size_t cases) : rates(cases), fractions(cases), hit(cases) {}
};

experts::StoreStatistics statistics_of(const model::Model& model) {
  return model.expert_store() ? model.expert_store()->statistics() : experts::StoreStatistics();
}

}  // namespace

RunResult run_cases(const model::Model& model, const model::PageFormat& format, const RunOptions& options) {
  const at::InferenceMode inference;
  const ModelWork work = work_of(model, format);
  const ReadProbe probe;
  const bool streamed = model.expert_store() != nullptr;
  Runner runner(model, format, options);
  Measured all(options.cases.size());
  RunResult result;
  result.routing = runner.routing();
  result.integer = work.integer;
  for (const Case& what : options.cases) result.cases.push_back({.what = what, .work = work_of(work, what)});

  Progress progress("Measuring", (options.rounds + 1) * std::ssize(options.cases));
  for (int64_t round = -1; round < options.rounds; ++round) {
    if (options.before_round) options.before_round();
    if (!options.disk_file.empty() && (round < 0) != streamed)
      all.disk.push_back(disk_bandwidth(options.disk_file, kDiskBytes));
    for (size_t i = 0; i < options.cases.size(); ++i) {
      stop_if_interrupted(options.interrupt);
      const Case& what = options.cases[i];
      const double bandwidth = probe.measure(options.threads), peak = int8_peak(options.threads),
                   products = bf16_product_rate();
      const experts::StoreStatistics before = statistics_of(model);
      const double seconds = runner.seconds(what);
      const experts::StoreStatistics after = statistics_of(model);
      progress.add(1);
      if (round < 0) continue;
      all.bandwidths.push_back(bandwidth), all.int8.push_back(peak), all.bf16.push_back(products);
      CaseResult& one = result.cases[i];
      const Work done = work_of(work, what, runner.experts_hit());
      all.hit[i] += done.experts_hit;
      double bound = bound_seconds(done, {bandwidth, work.integer ? peak : products}, &one.bound);
      if (streamed) add_use(one.disk, before, after, runner.steps(what) * static_cast<double>(options.rounds));
      const auto missed = static_cast<double>(after.bytes_missed - before.bytes_missed) / runner.steps(what);
      const double rate = streamed && !all.disk.empty() ? all.disk.back() : 0;
      if (rate > 0 && missed / rate > bound) bound = missed / rate, one.bound = "disk";
      all.rates[i].push_back(static_cast<double>(what.tokens()) / seconds);
      all.fractions[i].push_back(bound / seconds);
    }
  }
  result.read_bandwidth = Spread(all.bandwidths), result.int8_peak = Spread(all.int8);
  result.bf16_products = Spread(all.bf16);
  if (!all.disk.empty()) result.disk = Spread(all.disk);
  for (size_t i = 0; i < options.cases.size(); ++i) {
    CaseResult& one = result.cases[i];
    one.work = work_of(work, one.what, all.hit[i] / static_cast<double>(options.rounds));
    one.tokens_per_second = Spread(all.rates[i]), one.fraction = Spread(all.fractions[i]);
  }
  return result;
}

}  // namespace puna::bench
