// Any bytes as an answer with tool calls: whatever the pieces, the same content and calls, and all text where no
// bracket is.
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/json.h"
#include "text/tool_call_parser.h"

namespace puna::text {
namespace {

using Kind = ToolCallEvent::Kind;

/// All content, and each call with its name and arguments, as one text.
std::string run(std::string_view text, const ToolCallRules& rules, size_t piece_bytes) {
  ToolCallParser parser(rules);
  std::string out, arguments;
  const auto add = [&](const std::vector<ToolCallEvent>& events) {
    for (const ToolCallEvent& event : events) {
      if (event.kind == Kind::kCallBegun) out += "\nCALL ", arguments.clear();
      if (event.kind == Kind::kArguments) arguments += event.text;
      if (event.kind == Kind::kCallEnded && event.complete && !parse_ordered_json(arguments, "fuzz").is_object())
        std::abort();
      out += event.text;
    }
  };
  for (size_t at = 0; at < text.size(); at += piece_bytes) {
    const std::string_view piece = text.substr(at, piece_bytes);
    if (piece.starts_with('\x01')) add(parser.special("<|python_start|>"));
    add(parser.push(piece));
  }
  add(parser.finish());
  return out;
}

}  // namespace
}  // namespace puna::text

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using puna::text::run;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const bool any : {false, true}) {
    const puna::text::ToolCallRules rules{.tools = {{"f", {"a", "b"}}, {"g"}}, .any = any};
    const std::string whole = run(text, rules, size + 1);
    const bool has_special = text.find('\x01') != std::string_view::npos;
    if (!has_special && (run(text, rules, 1) != whole || run(text, rules, 7) != whole)) std::abort();
    if (text.find_first_of("([{<") == std::string_view::npos && whole != text) std::abort();
    if (has_special) run(text, rules, 1);
  }
  return 0;
}
