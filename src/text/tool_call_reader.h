// One tool call in one of the dialects, byte by byte: its name, and its arguments as JSON that grows.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/literal_reader.h"
#include "text/tool_call_parser.h"

namespace puna::text {

/// The names that make a text a call.
class ToolNames {
 public:
  explicit ToolNames(const ToolCallRules& rules);

  /// The tool that a written name means, as "search" for "search.call"; nullopt when it is none.
  std::optional<std::string> resolve(const std::string& written, bool allow_any) const;
  /// Some name may begin so.
  bool may_begin(std::string_view prefix, bool allow_any) const;
  /// In the order in which arguments without names go to them; empty when not known.
  const std::vector<std::string>& parameters(const std::string& tool) const;

 private:
  std::map<std::string, std::vector<std::string>, std::less<>> tools_;
  bool any_;
};

class ToolCallReader {
 public:
  explicit ToolCallReader(const ToolNames& names, LiteralStyle style)
      : names_(names), literal_(arguments_, style, kMaxToolCallDepth - (style == LiteralStyle::kPython ? 1 : 0)) {}
  virtual ~ToolCallReader() = default;
  ToolCallReader(const ToolCallReader&) = delete;
  ToolCallReader& operator=(const ToolCallReader&) = delete;

  virtual ReadStep feed(int byte) = 0;

  const std::string& name() const { return name_; }  // final once may_announce()
  const std::string& arguments() const { return arguments_; }
  /// Bytes of arguments() that no further byte changes.
  size_t settled() const { return literal_.settled(); }
  /// What has been read cannot well be anything but a call of the tool.
  bool may_announce() const { return may_announce_; }
  /// The text ended too soon, in what was about to become a call.
  bool is_cut() const { return is_cut_; }
  /// Bytes before the last one that are not part of the call, though they decided that it is one.
  size_t look_ahead() const { return look_ahead_; }

 protected:
  const ToolNames& names_;
  std::string name_, arguments_;
  LiteralReader literal_;
  bool may_announce_ = false, is_cut_ = false;
  size_t look_ahead_ = 0;
};

/// Where f(a=1) stands decides what must follow it, and whether it can be announced before its end.
enum class CallPlace {
  kList,  // in brackets
  kTags,  // between <|python_start|> and <|python_end|>
  kLine,  // by itself: a call only if nothing else stands on its last line
};

/// `f(a=1, b="x")`, from the first byte of the name.
std::unique_ptr<ToolCallReader> read_python_call(const ToolNames& names, CallPlace place);
/// `{"name": "f", "parameters": {..}}`, from the brace.
std::unique_ptr<ToolCallReader> read_json_call(const ToolNames& names);
/// `f>{..}`: what follows `<function=`, without the closing tag.
std::unique_ptr<ToolCallReader> read_tagged_call(const ToolNames& names);

}  // namespace puna::text
