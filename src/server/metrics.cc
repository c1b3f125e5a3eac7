#include "server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "arch/layer_plan.h"
#include "base/memory.h"
#include "server/service.h"

namespace puna::server {
namespace {

using prometheus::Histogram;

const Histogram::BucketBoundaries kFirstToken = {0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300};
const Histogram::BucketBoundaries kHandling = {1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 3e-4, 5e-4, 1e-3, 1e-2, 1e-1};
const Histogram::BucketBoundaries kNextToken = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5};

Histogram& histogram(prometheus::Registry& registry, const char* name, const char* help,
                     const Histogram::BucketBoundaries& bounds) {
  return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, bounds);
}

}  // namespace

struct Metrics::Families {
  prometheus::Registry registry;
  prometheus::Family<prometheus::Counter>& requests = prometheus::BuildCounter()
                                                          .Name("puna_requests_total")
                                                          .Help("Requests answered, by path and status")
                                                          .Register(registry);
  Histogram& first =
      histogram(registry, "puna_time_to_first_token_seconds", "From arrival to the first token", kFirstToken);
  Histogram& next = histogram(registry, "puna_time_between_tokens_seconds", "From a token to the next", kNextToken);
  Histogram& handling = histogram(registry, "puna_token_handling_seconds",
                                  "From the engine's token to its bytes being with the connection", kHandling);

  // What the engine counts by itself is set when it is asked for.
  void set(const char* name, const char* help, double value, const prometheus::Labels& labels = {}) {
    prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels).Set(value);
  }
  void set_total(const char* name, const char* help, double value, const prometheus::Labels& labels = {}) {
    auto& counter = prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
    counter.Increment(value - counter.Value());
  }
};

Metrics::Metrics() : families_(std::make_unique<Families>()) {}
Metrics::~Metrics() = default;

void Metrics::count_request(const std::string& path, int status) {
  families_->requests.Add({{"path", path}, {"status", std::to_string(status)}}).Increment();
}
void Metrics::first_token(double seconds) { families_->first.Observe(seconds); }
void Metrics::next_token(double seconds) { families_->next.Observe(seconds); }
void Metrics::token_handled(double seconds) { families_->handling.Observe(seconds); }

std::string Metrics::text(const Service& service, const http::ServerStats& connections) {
  Families& f = *families_;
  const engine::Engine& engine = service.engine();
  const engine::EngineStats stats = engine.stats();
  const auto number = [](int64_t value) { return static_cast<double>(value); };
  f.set("puna_connections", "Open connections", number(connections.open_connections));
  f.set_total(
      "puna_connections_refused_total",
      "Connections ended before a request was read: too many, or answered with 400, 408, 413, 417, 431, 501, 503, 505",
      number(connections.refused));
  f.set("puna_answers_taken", "Answers that are prepared, wait or run, of --max-requests", number(service.num_taken()));
  f.set("puna_completions_running", "Completions in the present step's batch", number(stats.running));
  f.set("puna_completions_waiting", "Completions that wait for room", number(stats.waiting));
  for (const auto& [name, pool] : {std::pair{"global", stats.global}, {"chunked", stats.chunk}}) {
    const prometheus::Labels of_pool = {{"pool", name}};
    f.set("puna_cache_blocks", "Blocks of the cache, by pool", number(pool.capacity), of_pool);
    f.set("puna_cache_blocks_used", "Blocks that running completions hold", number(pool.used), of_pool);
    f.set("puna_cache_blocks_kept", "Blocks kept for later requests with the same beginning", number(pool.cached),
          of_pool);
  }
  f.set("puna_cache_bytes", "Bytes that the cache may take", number(stats.capacity_bytes));
  f.set("puna_memory_bytes", "Resident memory of the program", number(resident_memory_bytes()));
  f.set_total("puna_steps_total", "Steps of the engine", number(stats.steps));
  f.set_total("puna_prompt_tokens_total", "Tokens of prompts that have started", number(stats.prompt_tokens));
  f.set_total("puna_prompt_tokens_reused_total", "Of these, taken from the cache", number(stats.reused_tokens));
  f.set_total("puna_generated_tokens_total", "Tokens generated", number(stats.generated_tokens));
  f.set_total("puna_embedded_tokens_total", "Tokens of texts that were made vectors of", number(stats.embedded_tokens));
  f.set_total("puna_drafted_tokens_total", "Tokens guessed by speculation", number(stats.drafted_tokens));
  f.set_total("puna_accepted_tokens_total", "Of these, kept", number(stats.accepted_tokens));
  f.set_total("puna_preemptions_total", "Completions put off for lack of room", number(stats.preemptions));
  f.set_total("puna_evicted_blocks_total", "Kept blocks that were given up", number(stats.evictions));
  size_t of_experts = 0;
  for (const arch::LayerPlan& layer : arch::layer_plan(engine.loaded().config().text)) {
    if (!layer.moe) continue;
    const std::vector<int64_t>& rows = stats.expert_rows[of_experts++];
    for (size_t expert = 0; expert < rows.size(); ++expert)
      f.set_total("puna_expert_rows_total", "Rows that each routed expert got", number(rows[expert]),
                  {{"layer", std::to_string(layer.index)}, {"expert", std::to_string(expert)}});
  }
  if (stats.experts) {
    const Json figures = stats.experts->json();
    for (const auto& [name, value] : figures.items()) {
      if (value.is_number()) f.set(("puna_experts_" + name).c_str(), "Of the expert store", value.get<double>());
    }
  }
  return prometheus::TextSerializer().Serialize(f.registry.Collect());
}

}  // namespace puna::server
