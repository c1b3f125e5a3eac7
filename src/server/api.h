// The paths of the server and what answers them.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "http/exchange.h"
#include "http/server.h"
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

  /// Whether the caller may have its body read, by the header alone: no name of another machine, no page that may not
  /// ask, and a key that is known, where keys are in force. As http::ServerOptions::takes_body.
  bool takes_body(const http::Request& request) const;

  /// What answers the next request. Any thread.
  std::shared_ptr<Service> service() const;
  /// Another service from now on; returns the one of before, whose requests still run. Any thread.
  std::shared_ptr<Service> replace(std::shared_ptr<Service> service);

  /// For /metrics.
  std::function<http::ServerStats()> connections = [] { return http::ServerStats(); };

 private:
  using Exchange = std::shared_ptr<http::Exchange>;
  using Place = std::shared_ptr<Service::Place>;
  /// A request, as far as it is known before its body is read.
  struct Incoming {
    const http::Request& request;
    Exchange exchange;
    std::shared_ptr<Service> service;       // that answers it
    int owner;                              // whose key asks, for what is told to its owner alone; -1: no keys in force
    std::shared_ptr<RequestRecord> record;  // null: no log is kept
  };
  struct Route {
    const char* method;
    const char* path;
    void (Api::*answer)(const Incoming&);
    bool open = false;  // without a key
  };
  static constexpr std::string_view kRequestsPath = "/v1/requests/";

  static const std::vector<Route>& routes();
  /// As a route has it; "unknown": none has.
  static std::string known_path(const std::string& path);
  http::Headers cors_headers(const http::Request& request) const;

  /// Throws ApiError for the name of another machine and for pages that may not ask.
  void check_source(const http::Request& request) const;
  void route(Incoming& asked);
  void check_caller(Incoming& asked, const Route& route);
  /// `unknown`: fields that the request should not have, told in a header.
  void reply(const Exchange& exchange, const OrderedJson& json, const std::vector<std::string>& unknown = {});
  /// Gives the place back before that.
  void reply(const Place& place, const Exchange& exchange, const OrderedJson& json,
             const std::vector<std::string>& unknown = {});
  /// Reads the body as JSON and answers, on a worker.
  using Work = std::function<void(const OrderedJson&, const Place&, const Exchange&)>;
  void with_body(const Incoming& asked, Work work);
  /// A body on its way through the workers.
  struct Reading {
    Work work;
    Place place;
    Exchange exchange;
    ErrorForm error_form;
    std::string form_type;  // of a form whose parts are not yet taken; "": JSON
    std::string body;
    std::shared_ptr<void> held;  // the body counts as held
  };
  void read(const std::shared_ptr<Reading>& reading);

  void health(const Incoming& asked);
  void metrics(const Incoming& asked);
  void models(const Incoming& asked);
  void chat(const Incoming& asked);
  void completions(const Incoming& asked);
  void tokenize(const Incoming& asked);
  void detokenize(const Incoming& asked);
  void tokenizer_info(const Incoming& asked);
  void apply_template(const Incoming& asked);
  void requests(const Incoming& asked);
  void routing(const Incoming& asked);

  void responses(const Incoming& asked);
  void messages(const Incoming& asked);
  void count_tokens(const Incoming& asked);
  void embeddings(const Incoming& asked);
  void load_adapter(const Incoming& asked);
  void unload_adapter(const Incoming& asked);

  mutable std::mutex mutex_;
  std::shared_ptr<Service> current_;
  const ApiOptions options_;
  KeyMeter meter_;
};

}  // namespace puna::server
