#include <csignal>

#include <CLI/CLI.hpp>
#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "cli/commands.h"
#include "cli/engine_options.h"
#include "cli/options.h"
#include "cli/terminal.h"
#include "http/server.h"
#include "server/api.h"
#include "server/api_error.h"

namespace puna::cli {
namespace {

struct ServeFlags {
  ModelOptions model;
  EngineFlags engine;
  std::string host = "127.0.0.1", name, keys, certificate, key, image_dir, adapter_dir, request_log;
  bool fetch_images = false, log_texts = false;
  uint16_t port = 8080;
  int64_t context = 8192, max_requests = 1024, max_sequences = 256, max_tokens = 4096, drain_seconds = 30,
          request_seconds = 3600;
  std::vector<std::string> origins, adapters;
};

http::Server* running = nullptr;
std::chrono::seconds drain_time{30};
std::atomic<bool> is_loading = false;  // anew

/// A second signal cuts what is left.
void on_signal(int) {
  static volatile std::sig_atomic_t seen = 0;
  running->drain(seen ? std::chrono::milliseconds(0) : std::chrono::milliseconds(drain_time));
  seen = 1;
}

/// A model with what answers for it.
struct Loaded {
  explicit Loaded(const ServeFlags& flags)
      : model(load(flags.model, flags.context)),
        setup(flags.engine, model, flags.context),
        service(model, service_options(flags)) {
    for (const std::string& named : flags.adapters) {
      const size_t at = named.find('=');
      try {
        if (named.substr(0, at) == service.options().model_id)
          fail("--named-adapter", "'{}' is the model's own name", named);
        service.adapters().load(named.substr(0, at), named.substr(at + 1));
      } catch (const server::ApiError& error) {
        fail("--named-adapter " + named, "{}", error.what());
      }
    }
  }

  server::ServiceOptions service_options(const ServeFlags& flags) {
    server::ServiceOptions options;
    options.engine = setup.options();
    options.engine.max_sequences = flags.max_sequences;
    options.model_id = flags.name.empty() ? std::filesystem::path(model.name).filename().string() : flags.name;
    options.max_requests = flags.max_requests;
    options.default_tokens = flags.max_tokens;
    options.request_seconds = static_cast<double>(flags.request_seconds);
    options.images = {flags.image_dir, flags.fetch_images};
    options.adapter_directory = flags.adapter_dir;
    return options;
  }

  engine::LoadedModel model;
  EngineSetup setup;
  server::Service service;
};

std::shared_ptr<server::Service> load_service(const ServeFlags& flags) {
  auto loaded = std::make_shared<Loaded>(flags);
  return {loaded, &loaded->service};
}

sigset_t reload_signals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGUSR1);
  return signals;
}

/// SIGUSR1, blocked in all threads: the model and the adapters of the command line are loaded anew beside those that
/// answer, and then answer in their place. Requests that run end with the model that they began with.
void reload_on_signals(server::Api& api, const ServeFlags& flags, const std::stop_token& stop) {
  const sigset_t wanted = reload_signals();
  const timespec tick{0, 200'000'000};
  std::vector<std::shared_ptr<server::Service>> former;
  while (!stop.stop_requested()) {
    std::erase_if(former, [](const auto& service) { return service.use_count() == 1 && service->idle(); });
    if (sigtimedwait(&wanted, nullptr, &tick) != SIGUSR1) continue;
    try {
      is_loading = true;
      if (stop.stop_requested()) break;
      say_aside(fmt::format("Loading {} anew", api.service()->loaded().name));
      former.push_back(api.replace(load_service(flags)));
      say_aside(fmt::format("{} was loaded anew", api.service()->loaded().name));
    } catch (const std::exception& error) {
      spdlog::error("could not load anew, the model of before goes on: {}", error.what());
    }
    is_loading = false;
  }
  for (const auto& service : former) service->stop();
}

void block_reload_signal() {
  const sigset_t wanted = reload_signals();
  pthread_sigmask(SIG_BLOCK, &wanted, nullptr);
}

/// As browsers send it: scheme, host and port alone, in small letters, without the scheme's own port.
std::string checked_origin(std::string origin) {
  for (char& c : origin) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  if (origin.ends_with('/')) origin.pop_back();
  for (const auto& [scheme, port] :
       {std::pair<std::string_view, std::string_view>{"https://", ":443"}, {"http://", ":80"}})
    if (origin.starts_with(scheme) && origin.ends_with(port)) origin.resize(origin.size() - port.size());
  const size_t host = origin.find("://");
  if (origin != "*" && (host == std::string::npos || host == 0 || host + 3 == origin.size() ||
                        origin.find_first_of("/?#@ ", host + 3) != std::string::npos))
    throw UsageError("--origin", fmt::format("is '{}'; expected SCHEME://HOST or SCHEME://HOST:PORT, or *", origin));
  return origin;
}

void run_serve(const ServeFlags& flags) {
  block_reload_signal();  // before there are threads, which take it over
  for (const std::string& named : flags.adapters)
    if (const size_t at = named.find('='); at == 0 || at == std::string::npos)
      throw UsageError("--named-adapter", fmt::format("is '{}'; expected NAME=DIR", named));
  if (flags.certificate.empty() != flags.key.empty())
    throw UsageError("--certificate",
                     "and --key go together: the certificate with its chain, and its private key (PEM)");
  if (!flags.image_dir.empty() && !std::filesystem::is_directory(flags.image_dir))
    throw UsageError("--image-dir", fmt::format("is '{}', which is no directory", flags.image_dir));
  if (!flags.adapter_dir.empty() && !std::filesystem::is_directory(flags.adapter_dir))
    throw UsageError("--adapter-dir", fmt::format("is '{}', which is no directory", flags.adapter_dir));
  if (flags.log_texts && flags.request_log.empty())
    throw UsageError("--log-texts", "needs --request-log FILE, where they go");
  server::RequestLog request_log(flags.request_log, flags.log_texts);
  server::ApiOptions api_options;
  api_options.log = &request_log;
  if (!flags.keys.empty()) api_options.keys = server::Keys(flags.keys);
  for (const std::string& origin : flags.origins) api_options.origins.push_back(checked_origin(origin));
  const bool loopback = http::is_loopback(flags.host);
  api_options.loopback = loopback;

  server::Api api(load_service(flags), std::move(api_options));

  http::ServerOptions http_options;
  http_options.address = flags.host;
  http_options.port = flags.port;
  http_options.takes_body = [&](const http::Request& request) { return api.takes_body(request); };
  if (!flags.certificate.empty()) http_options.tls = http::Tls{flags.certificate, flags.key};
  http::Server server(http_options, [&](const http::Request& request, const std::shared_ptr<http::Exchange>& exchange) {
    api.handle(request, exchange);
  });
  api.connections = [&] { return server.stats(); };

  running = &server;
  drain_time = std::chrono::seconds(flags.drain_seconds);
  std::signal(SIGINT, on_signal);
  std::signal(SIGTERM, on_signal);
  std::jthread reloader([&](const std::stop_token& stop) { reload_on_signals(api, flags, stop); });
  print_now(fmt::format("{} serves {}: a page for browsers, and the interface of OpenAI under {}/v1; Ctrl-C ends it\n",
                        server.url(), api.service()->options().model_id, server.url()));
  if (!loopback && flags.keys.empty())
    say_aside("Anybody who reaches this address may use the model; --keys FILE asks for a key");
  server.run();
  reloader.request_stop();
  if (is_loading) std::_Exit(0);  // all is answered, and nobody waits for the model that is being read
  reloader = {};                  // waits for it
  api.service()->stop();
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
}

}  // namespace

void add_serve(CLI::App& app) {
  auto flags = std::make_shared<ServeFlags>();
  CLI::App* command = app.add_subcommand("serve", "Answer over HTTP, as the OpenAI interface does");
  add_model_options(*command, flags->model);
  command->add_option("--host", flags->host, "Address to listen on; 0.0.0.0: all of this machine")
      ->type_name("ADDRESS")
      ->capture_default_str();
  command->add_option("--port", flags->port, "0: any free one")
      ->type_name("N")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command->add_option("--name", flags->name, "What requests call the model; default: the name of its directory")
      ->type_name("NAME");
  command->add_option("--keys", flags->keys, "Ask for a key: a file of their SHA-256, one a line, with limits")
      ->type_name("FILE");
  command->add_option("--origin", flags->origins, "Web pages that may ask from a browser, such as https://chat.example")
      ->type_name("URL");
  command->add_option("--certificate", flags->certificate, "Serve https: certificate with its chain, PEM")
      ->type_name("FILE");
  command->add_option("--key", flags->key, "Private key of the certificate, PEM")->type_name("FILE");
  command->add_option("--context", flags->context, "Tokens of a usual conversation, to share out the cache")
      ->type_name("N")
      ->check(CLI::Range(int64_t{16}, int64_t{1} << 40))
      ->capture_default_str();
  command->add_option("--max-sequences", flags->max_sequences, "Answers that are generated at once")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--max-requests", flags->max_requests, "Requests waiting or running; more get status 429")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--max-tokens", flags->max_tokens, "Tokens to generate where a request does not say")
      ->type_name("N")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 40))
      ->capture_default_str();
  command
      ->add_option("--request-time", flags->request_seconds,
                   "Seconds from a request's arrival; then it has what there is")
      ->type_name("SECONDS")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20))
      ->capture_default_str();
  command->add_option("--image-dir", flags->image_dir, "Requests may name pictures in this directory, as file:NAME")
      ->type_name("DIR");
  command
      ->add_option("--named-adapter", flags->adapters,
                   "LoRA adapter directory for requests that name it as their model; may be repeated")
      ->type_name("NAME=DIR")
      ->allow_extra_args(false);
  command->add_option("--adapter-dir", flags->adapter_dir, "Requests may load and unload adapters of this directory")
      ->type_name("DIR");
  command->add_flag("--fetch-images", flags->fetch_images, "Get pictures from http and https URLs of public addresses");
  command->add_option("--request-log", flags->request_log, "Add a line of JSON for each request; -: standard error")
      ->type_name("FILE");
  command->add_flag("--log-texts", flags->log_texts,
                    "The request log has what was asked and answered, up to 64 KiB of each");
  command->add_option("--drain", flags->drain_seconds, "Seconds that running answers may take to end after Ctrl-C")
      ->type_name("SECONDS")
      ->check(CLI::Range(int64_t{0}, int64_t{86400}))
      ->capture_default_str();
  flags->engine.step_tokens = engine::EngineOptions().step_tokens;  // many wait for the end of a step
  add_engine_options(*command, flags->engine);
  command->footer(
      "Example:\n  puna serve --port 8080\n  curl http://127.0.0.1:8080/v1/chat/completions -H 'Content-Type: "
      "application/json' \\\n"
      "    -d '{\"messages\": [{\"role\": \"user\", \"content\": \"What is Puna?\"}]}'");
  command->callback([flags] { run_serve(*flags); });
}

}  // namespace puna::cli
