// Paths that the model answers.
#include "server/answer.h"
#include "server/api.h"
#include "server/embeddings.h"

namespace puna::server {

void Api::chat(const http::Request& request, const Exchange& exchange) {
  with_body(request, exchange, [exchange](const OrderedJson& body, const std::shared_ptr<Service::Place>& place) {
    answer(read_chat_call(body, *place), place, exchange);
  });
}

void Api::completions(const http::Request& request, const Exchange& exchange) {
  with_body(request, exchange, [exchange](const OrderedJson& body, const std::shared_ptr<Service::Place>& place) {
    answer(read_completion_call(body, *place), place, exchange);
  });
}

void Api::responses(const http::Request& request, const Exchange& exchange) {
  with_body(request, exchange, [exchange](const OrderedJson& body, const std::shared_ptr<Service::Place>& place) {
    answer(read_responses_call(body, *place), place, exchange);
  });
}

void Api::messages(const http::Request& request, const Exchange& exchange) {
  with_body(request, exchange, [exchange](const OrderedJson& body, const std::shared_ptr<Service::Place>& place) {
    answer(read_messages_call(body, *place), place, exchange);
  });
}

void Api::count_tokens(const http::Request& request, const Exchange& exchange) {
  with_body(request, exchange, [this, exchange](const OrderedJson& body, const std::shared_ptr<Service::Place>& place) {
    const CompletionCall call = read_messages_call(body, *place, true);
    reply(exchange, {{"input_tokens", call.requests.front().prompt.tokens.size()}});
  });
}

void Api::embeddings(const http::Request& request, const Exchange& exchange) {
  with_body(request, exchange, [exchange](const OrderedJson& body, const std::shared_ptr<Service::Place>& place) {
    answer_embeddings(body, place, exchange);
  });
}

}  // namespace puna::server
