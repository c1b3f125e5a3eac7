// The answers to calls for completions: sent whole, or in pieces as server-sent events.
#pragma once

#include <memory>

#include "http/exchange.h"
#include "server/completion.h"
#include "server/service.h"

namespace puna::server {

/// Submits the call's requests, and answers as the engine gives; a client that leaves cancels them. Throws ApiError or
/// Error, with nothing submitted, for what the engine refuses.
void answer(CompletionCall call, std::shared_ptr<Service::Place> place, std::shared_ptr<http::Exchange> exchange);

}  // namespace puna::server
