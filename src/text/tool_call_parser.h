// Tool calls in what a model writes, found while it is written (SPEC 8; all dialects that Llama 4 models use).
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace puna::text {

struct ToolSignature {
  std::string name;
  std::vector<std::string> parameters{};  // in order, for arguments without names; empty: these make it no call
};

struct ToolCallRules {
  std::vector<ToolSignature> tools;
  bool any = false;  // other names make calls too, except of a lone f(a=1)
};

constexpr size_t kMaxToolCallDepth = 64;  // nesting within the arguments
constexpr size_t kMaxToolNameBytes = 128;
constexpr size_t kMaxToolCallBytes = size_t{1} << 20;  // as written

struct ToolCallEvent {
  enum class Kind { kContent, kCallBegun, kArguments, kCallEnded };
  Kind kind = Kind::kContent;
  std::string text{};    // of the content, the tool's name, or what its arguments grow by; whole UTF-8 characters
  size_t call = 0;       // the index of the call
  bool complete = true;  // kCallEnded: its arguments are the text of one JSON object
};

/// Splits an answer into content and calls, whatever pieces it comes in:
///
///   ToolCallParser parser({.tools = {{.name = "weather"}}});
///   parser.push("Let me see. [weather(city='Pa");  // content "Let me see. ", call 0 of weather, {"city":"Pa
///   parser.push("ris')]");                         // ris"}, end of call 0
///   parser.finish();
///
/// Dialects: [f(a=1), g()]; f(a=1) on a line of its own; {"name": "f", "parameters": {..}}, also with "type":
/// "function", "arguments", arguments as a string, in lists, after ';'; <function=f>{..}</function>; each between
/// <|python_start|> and <|python_end|> too, with text around it. A call is announced when its first value begins, a
/// lone f(a=1) when its line ends. What never becomes a call is content, byte by byte as it came. A call that goes
/// wrong after that ends incomplete, and the text from there on is content. Around calls, white space, separators,
/// closing brackets and tags that nothing but calls and the ends of the answer surround are no content.
class ToolCallParser {
 public:
  explicit ToolCallParser(const ToolCallRules& rules);
  ~ToolCallParser();
  ToolCallParser(ToolCallParser&&) noexcept;
  ToolCallParser& operator=(ToolCallParser&&) noexcept;

  /// The next piece of text, cut anywhere.
  std::vector<ToolCallEvent> push(std::string_view text);
  /// A special token such as "<|python_start|>", whose text is in no piece. It ends what is open.
  std::vector<ToolCallEvent> special(std::string_view name);
  /// The end of the answer. A list may lack its last bracket, a JSON call its last brace.
  std::vector<ToolCallEvent> finish();

  size_t num_calls() const;
  /// No call was cut or went wrong.
  bool complete() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace puna::text
