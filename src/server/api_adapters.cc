// Paths that load and unload adapters, by the names that vLLM gave them.
#include <fmt/format.h>

#include "server/allowed_path.h"
#include "server/api.h"
#include "server/api_error.h"
#include "server/fields.h"

namespace puna::server {
namespace {

void check_allowed(const Service& service) {
  if (service.options().adapter_directory.empty())
    throw ApiError(403, "Adapters are loaded and unloaded only by a server that was started with --adapter-dir");
}

}  // namespace

void Api::load_adapter(const Incoming& asked) {
  check_allowed(*asked.service);
  with_body(asked, [this](const OrderedJson& body, const Place& place, const Exchange& exchange) {
    Service& service = place->service();
    if (!place->in_large_lane) throw Service::LargeWork();
    Fields fields(body);
    const std::string name = fields.required_text("lora_name"), given = fields.required_text("lora_path");
    if (name == service.options().model_id)
      throw ApiError(409, fmt::format("'{}' is the model's own name", name), "lora_name");
    const auto path = allowed_path(service.options().adapter_directory, given);
    if (path.empty()) throw ApiError(400, "'lora_path' is no directory that the server allows", "lora_path");
    service.adapters().load(name, path);
    reply(place, exchange, {{"status", "loaded"}, {"lora_name", name}});
  });
}

void Api::unload_adapter(const Incoming& asked) {
  check_allowed(*asked.service);
  with_body(asked, [this](const OrderedJson& body, const Place& place, const Exchange& exchange) {
    Fields fields(body);
    const std::string name = fields.required_text("lora_name");
    if (!place->service().adapters().unload(name))
      throw ApiError(404, fmt::format("There is no adapter '{}'", name.substr(0, 100)), "lora_name");
    reply(place, exchange, {{"status", "unloaded"}, {"lora_name", name}});
  });
}

}  // namespace puna::server
