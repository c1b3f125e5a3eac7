// Requests for completions, of /v1/chat/completions and /v1/completions: what they ask of the engine.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request.h"
#include "server/fields.h"
#include "server/service.h"
#include "text/tool_call_parser.h"

namespace puna::server {

struct CompletionCall {
  bool chat = true;
  bool stream = false;
  bool include_usage = false;             // a last chunk with the usage
  bool echo = false;                      // begin with the prompt
  bool return_routing = false;            // keep where the tokens went; of one completion alone
  int owner = -1;                         // whose key asks, set by who reads no body; -1: no keys are in force
  int top_logprobs = -1;                  // alternatives; -1: no log-probabilities
  text::ToolCallRules tools;              // without tools: what looks like a call is text
  std::vector<engine::Request> requests;  // one per prompt
  std::vector<bool> added_bos;            // whether <|begin_of_text|> was put before the prompt that was given
  std::vector<std::string> unknown;       // fields that mean nothing here
  engine::Clock::time_point arrival;
};

/// Throws ApiError, or Error for grammars and prompts that are wrong.
CompletionCall read_chat_call(const OrderedJson& body, Service& service);
CompletionCall read_completion_call(const OrderedJson& body, Service& service);

}  // namespace puna::server
