// What was generated, in the words of the OpenAI interface.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "engine/request.h"
#include "http/exchange.h"
#include "server/completion.h"

namespace puna::server {

std::string dump(const OrderedJson& json);

/// Tells in X-Puna-Ignored of fields that nobody asked for; names that are no plain words are left out.
void tell_ignored(http::Reply& reply, const std::vector<std::string>& names);

/// "chatcmpl-" and 24 random characters.
std::string new_id(std::string_view prefix);

/// Seconds since 1970.
int64_t unix_time();

/// What an answer cost: all completions of all prompts, a prompt once.
struct Usage {
  int64_t prompt = 0, cached = 0, generated = 0, drafted = 0, accepted = 0;
};
Usage usage_of(std::span<const engine::Response> responses);
/// Tokens of a picture, with those around and between its tiles: {"tokens", "rows", "columns"} for each, and their sum.
int64_t image_costs(const CompletionCall& call, OrderedJson& images);
OrderedJson usage_json(const CompletionCall& call, std::span<const engine::Response> responses);

/// Chat form: {"content": [{"token", "logprob", "bytes", "top_logprobs"}]}.
OrderedJson chat_logprobs(const engine::LoadedModel& loaded, std::span<const engine::Sample> samples);

/// A token with what was probable in its place; no sample: the first of a prompt, before which nothing stands.
struct PlacedToken {
  engine::TokenId id;
  const engine::Sample* sample;
};
/// Completion form: {"tokens", "token_logprobs", "top_logprobs", "text_offset"}. `offset`: characters before the first,
/// moved on.
OrderedJson completion_logprobs(const engine::LoadedModel& loaded, std::span<const PlacedToken> tokens,
                                int alternatives, int64_t& offset);

}  // namespace puna::server
