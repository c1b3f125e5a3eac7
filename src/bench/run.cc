#include "bench/run.h"

#include <ATen/ATen.h>

#include <memory>
#include <random>

#include "arch/layer_plan.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "model/batch.h"
#include "model/kv_cache.h"

namespace puna::bench {
namespace {

constexpr int64_t kStepsOfRound = 3;  // decoded tokens of a sequence, so that one step's noise does not decide
constexpr int64_t kPieceTokens = 2048;

class Runner {
 public:
  Runner(const model::Model& model, at::ScalarType dtype, uint64_t seed)
      : model_(model), dtype_(dtype), random_(seed) {}

  /// Seconds of wall time for the case, once.
  double seconds(const Case& what, int64_t threads) {
    return what.kind == Case::Kind::kPrompt ? prompt(what, threads) : decode(what, threads);
  }

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

  std::unique_ptr<model::KvCache> filled(int64_t length) {
    const arch::TextConfig& config = model_.config().text;
    auto cache = std::make_unique<model::KvCache>(config, dtype_, at::kCPU);
    for (int layer = 0; length > 0 && layer < config.num_hidden_layers; ++layer) {
      const at::Tensor rows = at::randn({length, config.num_key_value_heads, config.head_dim}).to(dtype_);
      cache->append(layer, rows, rows, 0);
    }
    return cache;
  }

  /// Time spent waiting for experts counts.
  double timed(int64_t threads, const std::function<void()>& work) const {
    return model_.expert_store() != nullptr ? wall_seconds_of(work) : seconds_of(threads, work);
  }

  double prompt(const Case& what, int64_t threads) {
    model::KvCache cache(model_.config().text, dtype_, at::kCPU);
    const at::Tensor tokens = random_tokens(what.length);
    return timed(threads, [&] {
      for (int64_t done = 0; done < what.length; done += kPieceTokens) {
        const int64_t count = std::min(kPieceTokens, what.length - done);
        model::Batch batch;
        batch.tokens = tokens.narrow(0, done, count);
        batch.sequence_begin = {0, count};
        batch.first_position = {done};
        batch.caches = {&cache};
        batch.output_rows = at::tensor({count - 1}, at::kLong);
        model_.forward(batch);
      }
    });
  }

  double decode(const Case& what, int64_t threads) {
    std::vector<std::unique_ptr<model::KvCache>> caches;
    model::Batch batch;
    for (int64_t i = 0; i < what.batch; ++i) {
      caches.push_back(filled(what.length));
      batch.caches.push_back(caches.back().get());
      batch.sequence_begin.push_back(i);
      batch.first_position.push_back(what.length);
    }
    batch.sequence_begin.push_back(what.batch);
    double total = 0;
    for (int64_t step = 0; step < kStepsOfRound; ++step) {
      batch.tokens = random_tokens(what.batch);
      total += timed(threads, [&] { model_.forward(batch); });
      for (int64_t& position : batch.first_position) ++position;
    }
    return total / static_cast<double>(kStepsOfRound);
  }

  const model::Model& model_;
  at::ScalarType dtype_;
  std::mt19937_64 random_;
};

}  // namespace

RunResult run_cases(const model::Model& model, at::ScalarType dtype, const RunOptions& options) {
  const at::InferenceMode inference;
  const ModelWork work = work_of(model, static_cast<int64_t>(c10::elementSize(dtype)));
  const ReadProbe probe;
  Runner runner(model, dtype, options.seed);
  std::vector<double> bandwidths, int8, bf16;
  std::vector<std::vector<double>> rates(options.cases.size()), fractions(options.cases.size());
  RunResult result;
  result.integer = work.integer;
  for (const Case& what : options.cases) result.cases.push_back({.what = what, .work = work_of(work, what)});
  const auto disk_bytes = [&] { return model.expert_store() ? model.expert_store()->statistics().bytes_read : 0; };

  Progress progress("Measuring", (options.rounds + 1) * std::ssize(options.cases));
  for (int64_t round = -1; round < options.rounds; ++round) {
    for (size_t i = 0; i < options.cases.size(); ++i) {
      stop_if_interrupted(options.interrupt);
      const Case& what = options.cases[i];
      const double bandwidth = probe.measure(options.threads), peak = int8_peak(options.threads),
                   products = bf16_product_rate();
      const int64_t before = disk_bytes();
      const double seconds = runner.seconds(what, options.threads);
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
