#include "tests/text/tool_call_support.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/json.h"
#include "text/utf8.h"

namespace puna::text {
namespace {

using Kind = ToolCallEvent::Kind;
constexpr char kBegin = '\x01', kEnd = '\x02';

/// Joins events to lines.
class Joined {
 public:
  void add(const std::vector<ToolCallEvent>& events) {
    for (const ToolCallEvent& event : events) add(event);
  }
  std::vector<std::string> lines;
  size_t num_calls = 0;
  bool complete = true;

 private:
  void add(const ToolCallEvent& event) {
    EXPECT_EQ(is_open_, event.kind == Kind::kArguments || event.kind == Kind::kCallEnded);
    switch (event.kind) {
      case Kind::kContent:
        if (lines.empty() || !lines.back().starts_with("= ")) lines.push_back("= ");
        EXPECT_FALSE(event.text.empty());
        lines.back() += event.text;
        break;
      case Kind::kCallBegun:
        EXPECT_EQ(event.call, num_calls++);
        is_open_ = true;
        name_ = event.text;
        arguments_.clear();
        break;
      case Kind::kArguments:
        EXPECT_EQ(event.call + 1, num_calls);
        EXPECT_FALSE(event.text.empty());
        EXPECT_EQ(valid_utf8_prefix(event.text), event.text.size());
        arguments_ += event.text;
        break;
      case Kind::kCallEnded:
        EXPECT_EQ(event.call + 1, num_calls);
        is_open_ = false;
        complete = complete && event.complete;
        if (event.complete) {
          EXPECT_TRUE(parse_ordered_json(arguments_, "arguments").is_object());
        }
        lines.push_back(name_ + (event.complete ? " " : "! ") + arguments_);
    }
  }

  bool is_open_ = false;
  std::string name_, arguments_;
};

}  // namespace

std::string special_token(std::string_view name) { return kBegin + std::string(name) + kEnd; }

ToolCallRules tool_rules(bool any) {
  return {
      .tools =
          {{"weather", {"city", "unit"}}, {"search", {"query"}}, {"f"}, {"g"}, {"get-time"}, {"math.add", {"x", "y"}}},
      .any = any};
}

std::vector<std::string> run_tool_calls(const ToolCallRules& rules, const std::string& text,
                                        const std::vector<size_t>& cuts) {
  ToolCallParser parser(rules);
  Joined joined;
  std::string piece;
  const auto push = [&] {
    if (!piece.empty()) joined.add(parser.push(piece));
    piece.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    if (std::binary_search(cuts.begin(), cuts.end(), i)) push();
    if (text[i] != kBegin) {
      piece += text[i];
      continue;
    }
    push();
    const size_t end = text.find(kEnd, i);
    joined.add(parser.special(text.substr(i + 1, end - i - 1)));
    i = end;
  }
  push();
  joined.add(parser.finish());
  EXPECT_EQ(parser.num_calls(), joined.num_calls);
  EXPECT_EQ(parser.complete(), joined.complete);
  return joined.lines;
}

}  // namespace puna::text
