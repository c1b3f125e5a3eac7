#include "cli/bench_serve.h"

#include <CLI/CLI.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/progress.h"
#include "bench/machine.h"
#include "cli/options.h"
#include "cli/stream_clients.h"
#include "cli/terminal.h"
#include "http/server.h"
#include "server/api.h"

namespace puna::cli {
namespace {

struct ServeBenchFlags {
  ModelOptions model;
  int64_t streams = 256, prompt = 32, tokens = 64, rounds = 3, idle = 0;
  std::vector<int64_t> batches;
  bool json = false;
};

/// The same work for the engine by itself and for the server: other prompts each time, so that the cache has none.
struct Work {
  std::vector<std::vector<engine::TokenId>> prompts;
  int64_t tokens;

  Work(const ServeBenchFlags& flags, const engine::LoadedModel& loaded, uint64_t seed) : tokens(flags.tokens) {
    std::mt19937_64 random(seed);
    const auto ordinary = std::max<int64_t>(1, loaded.config().text.vocab_size / 2);
    for (int64_t i = 0; i < flags.streams; ++i) {
      prompts.emplace_back();
      for (int64_t t = 0; t < flags.prompt; ++t)
        prompts.back().push_back(static_cast<engine::TokenId>(random() % static_cast<uint64_t>(ordinary)));
    }
  }
};

/// Seconds until the engine by itself has done it; texts are made, as the server has them.
double run_engine(engine::Engine& engine, const Work& work) {
  std::mutex mutex;
  std::condition_variable changed;
  size_t left = work.prompts.size();
  std::exception_ptr error;
  std::vector<engine::Request> requests;
  for (const auto& prompt : work.prompts) {
    engine::Request request;
    request.prompt.tokens = prompt;
    request.max_tokens = work.tokens;
    request.sampling.temperature = 0;
    request.ignore_stop_tokens = true;
    request.on_text = [](int, std::string_view) {};
    request.on_done = [&](const engine::Response& response) {
      const std::lock_guard lock(mutex);
      if (response.error) error = response.error;
      if (--left == 0) changed.notify_one();
    };
    requests.push_back(std::move(request));
  }
  return bench::wall_seconds_of([&] {
    engine.submit(std::move(requests));
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return left == 0; });
    if (error) std::rethrow_exception(error);
  });
}

StreamResult run_server(uint16_t port, const Work& work) {
  std::vector<std::string> bodies;
  for (const auto& prompt : work.prompts)
    bodies.push_back(Json({{"prompt", prompt},
                           {"max_tokens", work.tokens},
                           {"temperature", 0},
                           {"ignore_eos", true},
                           {"stream", true}})
                         .dump());
  return run_streams(port, "/v1/completions", bodies);
}

/// Of a histogram among the figures for Prometheus: the least of its bounds that holds the share.
std::string bound_of(const std::string& figures, const std::string& name, double share) {
  std::vector<std::pair<std::string, double>> counts;
  const std::string begin = name + "_bucket{le=\"";
  std::istringstream lines(figures);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(begin)) continue;
    const size_t end = line.find('"', begin.size());
    counts.emplace_back(line.substr(begin.size(), end - begin.size()), std::stod(line.substr(line.rfind(' '))));
  }
  for (const auto& [bound, count] : counts)
    if (count >= share * counts.back().second) return bound;
  return "";
}

/// The engine and a server over it, on a free port.
class Running {
 public:
  Running(const engine::LoadedModel& loaded, const server::ServiceOptions& options, int64_t connections)
      : service_(std::make_shared<server::Service>(loaded, options)),
        api_(service_, {}),
        server_(http_options(connections),
                [this](const http::Request& request, const std::shared_ptr<http::Exchange>& exchange) {
                  api_.handle(request, exchange);
                }),
        thread_([this] { server_.run(); }) {}
  ~Running() { server_.stop(); }

  server::Service& service() { return *service_; }
  uint16_t port() const { return server_.port(); }
  int64_t connections() const { return server_.stats().open_connections; }

 private:
  static http::ServerOptions http_options(int64_t connections) {
    http::ServerOptions options;
    options.port = 0;
    options.limits.connections = connections;
    return options;
  }

  std::shared_ptr<server::Service> service_;
  server::Api api_;
  http::Server server_;
  std::jthread thread_;
};

struct Measured {
  std::vector<std::pair<int64_t, bench::Spread>> engine;  // tokens per second by completions at once
  bench::Spread server;                                   // the same through the server
  std::vector<double> shares;                             // server by the best engine of the same round
  int64_t whole = 0, streams = 0;
  std::string first_wrong;  // of the streams
  std::string handling;     // seconds, the bound that 99 of 100 tokens keep
  double overhead = 0;      // seconds per token beyond the engine's, by the medians
  int64_t idle_bytes = 0;
};

int64_t measure_idle(Running& running, int64_t count, IdleConnections& idle) {
  const int64_t before = resident_memory_bytes(), open = running.connections();
  idle.open(running.port(), count);
  for (int i = 0; i < 600 && running.connections() < open + count; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  if (running.connections() < open + count)
    fail("bench serve", "the server took {} of {} connections", running.connections() - open, count);
  return resident_memory_bytes() - before;
}

Measured measure(const ServeBenchFlags& flags, const engine::LoadedModel& loaded, IdleConnections& idle) {
  const auto generated = static_cast<double>(flags.streams * flags.tokens);
  std::vector<int64_t> batches = flags.batches;
  if (batches.empty()) batches = {std::max<int64_t>(flags.streams / 4, 1), flags.streams};
  Measured result;
  std::vector<std::vector<double>> engines(batches.size());
  std::vector<double> servers;
  Progress progress("rounds", flags.rounds);
  uint64_t seed = 0;
  for (int64_t round = 0; round < flags.rounds; ++round) {
    double best = 0;
    for (size_t i = 0; i < batches.size(); ++i) {
      server::ServiceOptions options;
      options.engine.max_sequences = batches[i];
      options.engine.context_tokens = flags.prompt + flags.tokens;
      options.model_id = "bench";
      options.max_requests = flags.streams;
      Running running(loaded, options, flags.streams + flags.idle + 100);
      run_engine(running.service().engine(), Work(flags, loaded, seed++));  // not counted
      engines[i].push_back(generated / run_engine(running.service().engine(), Work(flags, loaded, seed++)));
      best = std::max(best, engines[i].back());
      if (i + 1 < batches.size()) continue;
      const StreamResult streams = run_server(running.port(), Work(flags, loaded, seed++));
      servers.push_back(generated / streams.seconds);
      result.shares.push_back(servers.back() / best);
      result.whole += streams.whole;
      result.streams += flags.streams;
      if (result.first_wrong.empty()) result.first_wrong = streams.first_wrong;
      result.handling = bound_of(running.service().metrics()->text(running.service(), http::ServerStats()),
                                 "puna_token_handling_seconds", 0.99);
      if (flags.idle > 0 && round + 1 == flags.rounds) result.idle_bytes = measure_idle(running, flags.idle, idle);
    }
    progress.add(1);
  }
  double best = 0;
  for (size_t i = 0; i < batches.size(); ++i) {
    result.engine.emplace_back(batches[i], bench::Spread(engines[i]));
    best = std::max(best, result.engine.back().second.middle);
  }
  result.server = bench::Spread(servers);
  result.overhead = 1 / result.server.middle - 1 / best;
  return result;
}

Json spread_json(const bench::Spread& spread) {
  return {{"min", spread.low}, {"median", spread.middle}, {"max", spread.high}};
}

void print(const ServeBenchFlags& flags, const Measured& m) {
  const bench::Spread share(m.shares);
  if (flags.json) {
    Json json = {{"streams", flags.streams},
                 {"whole", m.whole},
                 {"sent", m.streams},
                 {"server_tokens_per_second", spread_json(m.server)},
                 {"share_of_best_engine", spread_json(share)},
                 {"overhead_seconds_per_token", m.overhead},
                 {"handling_seconds_99_percent", m.handling}};
    for (const auto& [batch, spread] : m.engine)
      json["engine_tokens_per_second"][std::to_string(batch)] = spread_json(spread);
    if (flags.idle > 0) json["idle"] = {{"connections", flags.idle}, {"bytes", m.idle_bytes}};
    return print_now(json.dump(2) + "\n");
  }
  std::string text = fmt::format("{:<44} {:>9} {:>9} {:>9}\n", "tokens per second", "min", "median", "max");
  const auto row = [&](const std::string& name, const bench::Spread& spread, int digits) {
    text += fmt::format("{:<44} {:>9.{}f} {:>9.{}f} {:>9.{}f}\n", name, spread.low, digits, spread.middle, digits,
                        spread.high, digits);
  };
  for (const auto& [batch, spread] : m.engine) row(fmt::format("engine alone, {} at once", batch), spread, 0);
  row(fmt::format("server, {} streams", flags.streams), m.server, 0);
  row("share of the better engine of the round", share, 3);
  text += fmt::format("\n{} of {} streams came whole{}\n", m.whole, m.streams,
                      m.first_wrong.empty() ? "" : "; another began with: " + m.first_wrong);
  text += fmt::format("beyond the engine's time for a token: {:.3f} ms, by the medians\n", m.overhead * 1e3);
  text += fmt::format("handing a token on takes at most {} s for 99 of 100\n", m.handling);
  if (flags.idle > 0) text += fmt::format("{} idle connections take {}\n", flags.idle, format_bytes(m.idle_bytes));
  print_now(text);
}

void run_serve_bench(const ServeBenchFlags& flags) {
  constexpr int64_t kOthers = 200;  // files beside the sockets; both ends of the streams are here
  const int64_t needed = 2 * flags.streams + flags.idle + kOthers, allowed = raise_open_files(needed);
  if (allowed < needed)
    throw UsageError("bench serve",
                     fmt::format("needs {} open files and the system allows {}; raise it with ulimit -n, "
                                 "or use fewer --streams and --idle",
                                 needed, allowed));
  IdleConnections idle;  // before there are threads
  const engine::LoadedModel loaded = load(flags.model, flags.streams * (flags.prompt + flags.tokens));
  print(flags, measure(flags, loaded, idle));
}

}  // namespace

void add_bench_serve(CLI::App& bench) {
  auto flags = std::make_shared<ServeBenchFlags>();
  CLI::App* command =
      bench.add_subcommand("serve", "What the server costs beyond the engine, with many streams at once");
  add_model_options(*command, flags->model);
  const auto count = [&](const char* name, int64_t& value, const char* help, int64_t least, int64_t most) {
    command->add_option(name, value, help)->type_name("N")->check(CLI::Range(least, most))->capture_default_str();
  };
  count("--streams", flags->streams, "Clients at once", 1, 100'000);
  count("--prompt", flags->prompt, "Tokens of each prompt", 1, 1 << 20);
  count("--tokens", flags->tokens, "Tokens of each answer", 1, 1 << 20);
  count("--rounds", flags->rounds, "Measurements", 1, 1000);
  count("--idle", flags->idle, "Then open so many connections that say nothing, and measure their memory", 0, 100'000);
  command->add_option("--batch", flags->batches, "Completions at once for the engine; the last one is the server's too")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{100'000}));
  command->add_flag("--json", flags->json, "Print JSON");
  command->footer(
      "The same prompts go to the engine by itself and, as event streams over sockets of this machine, through the "
      "server.\nExample:\n  puna bench serve --streams 256 --idle 10000");
  command->callback([flags] { run_serve_bench(*flags); });
}

}  // namespace puna::cli
