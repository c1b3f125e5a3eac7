// Paths that the model answers.
#include "server/answer.h"
#include "server/api.h"
#include "server/embeddings.h"

namespace puna::server {

void Api::chat(const Incoming& asked) {
  with_body(asked, [](const OrderedJson& body, const Place& place, const Exchange& exchange) {
    answer(read_chat_call(body, *place), place, exchange);
  });
}

void Api::completions(const Incoming& asked) {
  with_body(asked, [](const OrderedJson& body, const Place& place, const Exchange& exchange) {
    answer(read_completion_call(body, *place), place, exchange);
  });
}

void Api::responses(const Incoming& asked) {
  with_body(asked, [](const OrderedJson& body, const Place& place, const Exchange& exchange) {
    answer(read_responses_call(body, *place), place, exchange);
  });
}

void Api::messages(const Incoming& asked) {
  with_body(asked, [](const OrderedJson& body, const Place& place, const Exchange& exchange) {
    answer(read_messages_call(body, *place), place, exchange);
  });
}

void Api::count_tokens(const Incoming& asked) {
  with_body(asked, [this](const OrderedJson& body, const Place& place, const Exchange& exchange) {
    const CompletionCall call = read_messages_call(body, *place, true);
    reply(place, exchange, {{"input_tokens", call.requests.front().prompt.tokens.size()}}, call.unknown);
  });
}

void Api::embeddings(const Incoming& asked) {
  with_body(asked, [](const OrderedJson& body, const Place& place, const Exchange& exchange) {
    answer_embeddings(body, place, exchange);
  });
}

}  // namespace puna::server
