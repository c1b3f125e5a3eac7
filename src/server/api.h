// The paths of the server and what answers them.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "http/exchange.h"
#include "server/api_error.h"
#include "server/keys.h"
#include "server/service.h"

namespace puna::server {

struct ApiOptions {
  Keys keys;                         // none: anybody may ask
  std::vector<std::string> origins;  // of pages in browsers that may ask, such as "https://chat.example"; "*": any
  bool loopback = true;              // only requests for this machine's own names are taken
  RequestLog* log = nullptr;         // must outlive the Api
};

class Api {
 public:
  Api(std::shared_ptr<Service> service, ApiOptions options);

  /// Answers, at once or later. As http::Handler.
  void handle(const http::Request& request, const std::shared_ptr<http::Exchange>& exchange);

  /// What answers the next request. Any thread.
  std::shared_ptr<Service> service() const;
  /// Another service from now on; returns the one of before, whose requests still run. Any thread.
  std::shared_ptr<Service> replace(std::shared_ptr<Service> service);

  /// For /metrics.
  std::function<int64_t()> open_connections = [] { return 0; };

 private:
  using Exchange = std::shared_ptr<http::Exchange>;
  struct Route {
    const char* method;
    const char* path;
    void (Api::*answer)(const http::Request&, const Exchange&);
    bool open = false;  // without a key
  };
  static constexpr std::string_view kRequestsPath = "/v1/requests/";

  static const std::vector<Route>& routes();
  /// As a route has it; "unknown": none has.
  static std::string known_path(const std::string& path);
  http::Headers cors_headers(const http::Request& request) const;

  void route(const http::Request& request, const Exchange& exchange);
  void check_caller(const http::Request& request, const Route& route);
  void reply(const Exchange& exchange, const OrderedJson& json);
  /// Reads the body as JSON and answers, on a worker.
  using Work = std::function<void(const OrderedJson&, const std::shared_ptr<Service::Place>&)>;
  void with_body(const http::Request& request, const Exchange& exchange, Work work);
  void do_work(const Work& work, const std::shared_ptr<const OrderedJson>& json,
               const std::shared_ptr<Service::Place>& place, const Exchange& exchange, ErrorForm form);

  void health(const http::Request& request, const Exchange& exchange);
  void metrics(const http::Request& request, const Exchange& exchange);
  void models(const http::Request& request, const Exchange& exchange);
  void chat(const http::Request& request, const Exchange& exchange);
  void completions(const http::Request& request, const Exchange& exchange);
  void tokenize(const http::Request& request, const Exchange& exchange);
  void detokenize(const http::Request& request, const Exchange& exchange);
  void tokenizer_info(const http::Request& request, const Exchange& exchange);
  void apply_template(const http::Request& request, const Exchange& exchange);
  void requests(const http::Request& request, const Exchange& exchange);
  void routing(const http::Request& request, const Exchange& exchange);

  void responses(const http::Request& request, const Exchange& exchange);
  void messages(const http::Request& request, const Exchange& exchange);
  void count_tokens(const http::Request& request, const Exchange& exchange);
  void embeddings(const http::Request& request, const Exchange& exchange);
  void load_adapter(const http::Request& request, const Exchange& exchange);
  void unload_adapter(const http::Request& request, const Exchange& exchange);

  mutable std::mutex mutex_;
  std::shared_ptr<Service> current_;
  const ApiOptions options_;
  KeyMeter meter_;
  // Of the request that handle() has: the server's thread alone calls it.
  std::shared_ptr<Service> service_;
  int owner_ = -1;  // whose key asks, for what is told to its owner alone; -1: no keys are in force
  std::shared_ptr<RequestRecord> record_;
};

}  // namespace puna::server
