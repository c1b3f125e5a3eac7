// Paths that tell what requests do and did.
#include <fmt/format.h>

#include "server/api.h"
#include "server/api_error.h"
#include "server/routing_json.h"

namespace puna::server {

void Api::requests(const http::Request&, const Exchange& exchange) {
  reply(exchange, {{"object", "list"},
                   {"model", service_->options().model_id},
                   {"data", service_->requests().running(owner_)},
                   {"engine", engine_json(service_->engine().stats())}});
}

void Api::routing(const http::Request& request, const Exchange& exchange) {
  constexpr std::string_view kBefore = kRequestsPath, kAfter = "/routing";
  const std::string_view path = request.path;
  if (!path.ends_with(kAfter) || path.size() <= kBefore.size() + kAfter.size())
    throw ApiError(404, fmt::format("There is no {}; did you mean {}ID/routing?", path.substr(0, 200), kBefore));
  const std::string id(path.substr(kBefore.size(), path.size() - kBefore.size() - kAfter.size()));
  auto kept = service_->requests().find(id, owner_);
  service_->prepare([this, exchange, kept = std::move(kept), place = service_->take_place()] {
    if (exchange->gone()) return;
    try {
      reply(exchange, routing_json(*kept, place->service().loaded()));
    } catch (...) {
      exchange->reply(api_error_of(std::current_exception()).reply());
    }
  });
}

}  // namespace puna::server
