// Paths that tell what requests do and did.
#include <fmt/format.h>

#include "server/api.h"
#include "server/api_error.h"
#include "server/routing_json.h"

namespace puna::server {

void Api::requests(const Incoming& asked) {
  reply(asked.exchange, {{"object", "list"},
                         {"model", asked.service->options().model_id},
                         {"data", asked.service->requests().running(asked.owner)},
                         {"answers_taken", asked.service->num_taken()},
                         {"engine", engine_json(asked.service->engine().stats())}});
}

void Api::routing(const Incoming& asked) {
  constexpr std::string_view kBefore = kRequestsPath, kAfter = "/routing";
  const std::string_view path = asked.request.path;
  if (!path.ends_with(kAfter) || path.size() <= kBefore.size() + kAfter.size())
    throw ApiError(404, fmt::format("There is no {}; did you mean {}ID/routing?", path.substr(0, 200), kBefore));
  const std::string id(path.substr(kBefore.size(), path.size() - kBefore.size() - kAfter.size()));
  auto kept = asked.service->requests().find(id, asked.owner);
  asked.service->prepare(
      [this, exchange = asked.exchange, kept = std::move(kept), place = asked.service->take_place()] {
        if (exchange->gone()) return;
        try {
          reply(place, exchange, routing_json(*kept, place->service().loaded()));
        } catch (...) {
          place->release();
          exchange->reply(api_error_of(std::current_exception()).reply());
        }
      },
      Service::Lane::kLarge);
}

}  // namespace puna::server
