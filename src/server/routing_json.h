// Where the tokens of a request went, and what the engine does now, as JSON.
#pragma once

#include "base/json.h"
#include "engine/engine.h"
#include "server/requests.h"

namespace puna::server {

/// Tokens with the experts of each layer, and the pictures' tiles with their places in the prompt.
OrderedJson routing_json(const KeptRouting& routing, const engine::LoadedModel& loaded);

/// {"running", "waiting", "generated_tokens", ..., "cache": [pools], "experts"}; "experts" is null when all are in
/// memory.
OrderedJson engine_json(const engine::EngineStats& stats);

}  // namespace puna::server
