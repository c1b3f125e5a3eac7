// /v1/embeddings: texts to vectors.
#pragma once

#include <memory>

#include "http/exchange.h"
#include "server/service.h"

namespace puna::server {

/// Reads the request, has the engine do it, and answers. Throws ApiError.
void answer_embeddings(const OrderedJson& body, std::shared_ptr<Service::Place> place,
                       std::shared_ptr<http::Exchange> exchange);

}  // namespace puna::server
