// Runs the parser of tool calls over a text in given pieces and shows what came of it as lines.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/tool_call_parser.h"

namespace puna::text {

/// Stands for a special token in a text for run_tool_calls: its name, as no text can spell it.
std::string special_token(std::string_view name);

/// The tools of the tests: weather(city, unit), search(query), f, g, get-time, math.add(x, y).
ToolCallRules tool_rules(bool any = false);

/// "= text" for content, `name {arguments}` for a call, `name! {argum` for one that is not complete. Pieces end at each
/// of `cuts` and around special tokens. Fails the test where the order of events or the arguments are wrong.
std::vector<std::string> run_tool_calls(const ToolCallRules& rules, const std::string& text,
                                        const std::vector<size_t>& cuts);

}  // namespace puna::text
