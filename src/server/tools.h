// The tools of a request: what the model is told of them, and what it must or may call.
#pragma once

#include <string>

#include "server/fields.h"
#include "text/tool_call_parser.h"

namespace puna::server {

struct Tools {
  OrderedJson definitions = nullptr;  // as given, for the chat format; null: none
  text::ToolCallRules rules;          // no tools: what looks like a call is text
  std::string schema;                 // of the one call that must be made; "": none must
};

/// Reads tools and tool_choice: auto, none, required, or a function by name. Throws ApiError.
Tools read_tools(Fields& fields);

}  // namespace puna::server
