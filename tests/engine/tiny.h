// A tiny random model for the engine's tests: four layers, the last global, attention chunks of 32.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/engine.h"

namespace puna::test {

struct TinyOptions {
  uint64_t seed = 1;
  at::ScalarType dtype = at::kFloat;
  int64_t chunk = 32, vocab_size = 96, context = 4096, width = 32;
};
engine::LoadedModel tiny_model(const TinyOptions& options = {});

/// Token ids below 90, the same for the same seed.
std::vector<engine::TokenId> random_tokens(int64_t count, uint64_t seed);
engine::Prompt prompt_of(std::vector<engine::TokenId> tokens);

/// Text, then for each key an image of one colour, the same for the same key, and three tokens.
engine::Prompt image_prompt(const engine::LoadedModel& loaded, int64_t before, const std::vector<uint64_t>& keys);

/// Greedy, with log-probabilities.
engine::Request request_of(std::vector<engine::TokenId> tokens, int64_t max_tokens);

/// The tokens that the model gives to this request alone, by the plain path: one sequence, one cache of its own.
std::vector<engine::TokenId> alone(const engine::LoadedModel& loaded, const engine::Request& request);

/// Bytes of a cache of so many blocks of both kinds.
int64_t cache_bytes(const engine::LoadedModel& loaded, int64_t blocks);

}  // namespace puna::test
