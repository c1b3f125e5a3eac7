// Any bytes as the lines of a task, the first of which may be a header: items with what their kind needs, or an Error.
#include <algorithm>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "eval/read_item.h"

namespace puna::eval {
namespace {

void check(const Item& item) {
  if (item.kind() == Kind::kPerplexity) {
    if (item.text.empty()) __builtin_trap();
    return;
  }
  size_t images = 0;
  for (const auto& message : item.messages)
    for (const auto& part : message.parts)
      if (const auto* image = std::get_if<text::ImagePart>(&part))
        if (image->image != images++) __builtin_trap();
  if (images != item.images.size() || prompt_text(item).size() > size_t{1} << 30) __builtin_trap();
  if (item.kind() == Kind::kMultipleChoice && item.right_choice >= item.choices.size()) __builtin_trap();
  if (item.kind() == Kind::kExactMatch && item.answers.empty()) __builtin_trap();
}

void read(std::string_view text) {
  Settings defaults;
  for (int64_t line = 1; !text.empty(); ++line) {
    const std::string_view content = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(content.size() + 1, text.size()));
    const Json json = parse_json(content, "fuzz");
    if (line == 1 && json.is_object() && json.contains("task"))
      read_settings(Fields(json["task"], "fuzz"), defaults);
    else
      check(read_item(json, "fuzz", line, defaults, "/nowhere"));
  }
}

}  // namespace
}  // namespace puna::eval

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    puna::eval::read({reinterpret_cast<const char*>(data), size});
  } catch (const puna::Error&) {
  }
  return 0;
}
