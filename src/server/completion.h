// Requests for completions, in the words of any interface: what they ask of the engine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/api_error.h"
#include "server/fields.h"
#include "server/service.h"
#include "text/tool_call_parser.h"

namespace puna::server {

enum class CallForm { kChat, kCompletions, kResponses, kMessages };

struct CompletionCall {
  CallForm form = CallForm::kChat;
  std::string model;  // as the request names it
  bool stream = false;
  bool include_usage = false;                  // a last chunk with the usage
  bool echo = false;                           // begin with the prompt
  bool return_routing = false;                 // keep where the tokens went; of one completion alone
  bool routing_if_room = false;                // answer without it where it cannot be kept
  int top_logprobs = -1;                       // alternatives; -1: no log-probabilities
  text::ToolCallRules tools;                   // without tools: what looks like a call is text
  std::vector<engine::Request> requests;       // one per prompt
  std::vector<text::ImageTiles> images;        // of the prompt
  std::vector<bool> added_bos;                 // whether <|begin_of_text|> was put before the prompt that was given
  std::vector<std::string> unknown;            // fields that mean nothing here
  OrderedJson echoed = OrderedJson::object();  // of /v1/responses: what its answer repeats
};

// All throw ApiError, or Error for grammars and prompts that are wrong.

CompletionCall read_chat_call(const OrderedJson& body, Service::Place& place);
CompletionCall read_completion_call(const OrderedJson& body, Service::Place& place);
CompletionCall read_responses_call(const OrderedJson& body, Service::Place& place);
/// Of Anthropic's interface. `counting`: /v1/messages/count_tokens, which needs no max_tokens.
CompletionCall read_messages_call(const OrderedJson& body, Service::Place& place, bool counting = false);

/// The field that a prompt comes from, for errors.
const char* prompt_field(CallForm form);
ErrorForm error_form(CallForm form);
/// "The prompt has ... tokens; the model's context is ..."
ApiError too_long(int64_t tokens, int64_t context, const char* field);

}  // namespace puna::server
