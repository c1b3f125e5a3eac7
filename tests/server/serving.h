// The server over a tiny model, all in this process.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/json.h"
#include "server/api.h"
#include "tests/engine/tiny.h"
#include "tests/http/support.h"
#include "tests/text/tiny_tokenizer.h"

namespace puna::server::test {

/// A model with its service, as long as somebody holds the service.
struct Loaded {
  explicit Loaded(uint64_t seed, ServiceOptions options)
      : model([&] {
          auto tokenizer = text::Tokenizer::from_hf_json(puna::test::tiny_tokenizer_json(), "tiny");
          engine::LoadedModel loaded =
              puna::test::tiny_model({.seed = seed, .vocab_size = tokenizer->vocab_size(), .context = 4096});
          loaded.tokenizer = std::move(tokenizer);
          return loaded;
        }()),
        service(model, std::move(options)) {}

  engine::LoadedModel model;
  Service service;
};

inline std::shared_ptr<Service> load_service(uint64_t seed, int64_t max_requests = 1024) {
  ServiceOptions options;
  options.model_id = "tiny";
  options.engine.step_tokens = 64;
  options.default_tokens = 32;
  options.max_requests = max_requests;
  options.engine.cache_bytes = int64_t{64} << 20;
  const auto loaded = std::make_shared<Loaded>(seed, options);
  return {loaded, &loaded->service};
}

class Serving {
 public:
  explicit Serving(std::shared_ptr<Service> service)
      : api_(std::move(service), options()),
        running_([this](const http::Request& request, const std::shared_ptr<http::Exchange>& exchange) {
          api_.handle(request, exchange);
        }) {}
  ~Serving() {
    running_.server().stop();
    running_.join();
    api_.service()->stop();
  }
  static ApiOptions options() {
    ApiOptions options;
    options.loopback = false;
    return options;
  }
  Api& api() { return api_; }
  uint16_t port() const { return running_.port(); }

 private:
  Api api_;
  http::test::RunningServer running_;
};

inline std::string json_post(std::string_view path, const OrderedJson& body) {
  return http::test::post(path, body.dump(), "Content-Type: application/json\r\n");
}

inline OrderedJson completion(std::string_view prompt, int64_t tokens, bool stream) {
  return {{"prompt", prompt}, {"max_tokens", tokens}, {"temperature", 0}, {"ignore_eos", true}, {"stream", stream}};
}

}  // namespace puna::server::test
