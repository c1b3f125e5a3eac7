#include "text/special_names.h"

#include <fmt/format.h>

#include <string_view>

namespace puna::text {
namespace {

constexpr size_t kNumSpecials = 2048;

/// A named token, or (count > 0) a run of `<|NAME_i|>` with i from `first` on.
struct Entry {
  std::string_view name;
  int first = 0, count = 0;
};

constexpr Entry kEntries[] = {
    {"begin_of_text"},
    {"end_of_text"},
    {"fim_prefix"},
    {"fim_middle"},
    {"fim_suffix"},
    {"header_start"},
    {"header_end"},
    {"eom"},
    {"eot"},
    {"step"},
    {"text_post_train_reserved_special_token", 0, 6},
    {"python_start"},
    {"python_end"},
    {"finetune_right_pad"},
    {"text_post_train_reserved_special_token", 8, 61},
    {"image_start"},
    {"image_end"},
    {"vision_reserved_special_token", 0, 2},
    {"tile_x_separator"},
    {"tile_y_separator"},
    {"vision_reserved_special_token", 2, 4},
    {"image"},
    {"vision_reserved_special_token", 6, 1},
    {"patch"},
    {"vision_reserved_special_token", 7, 1041},
    {"reasoning_reserved_special_token", 0, 8},
    {"reasoning_thinking_start"},
    {"reasoning_thinking_end"},
};

}  // namespace

std::vector<std::string> meta_special_names() {
  std::vector<std::string> names;
  names.reserve(kNumSpecials);
  for (const Entry& entry : kEntries) {
    if (entry.count == 0) names.push_back(fmt::format("<|{}|>", entry.name));
    for (int i = 0; i < entry.count; ++i) names.push_back(fmt::format("<|{}_{}|>", entry.name, entry.first + i));
  }
  for (int i = 0; names.size() < kNumSpecials; ++i) names.push_back(fmt::format("<|reserved_special_token_{}|>", i));
  return names;
}

std::vector<std::string> compact_special_names() {
  std::vector<std::string> names;
  for (const Entry& entry : kEntries)
    if (entry.count == 0) names.push_back(fmt::format("<|{}|>", entry.name));
  return names;
}

}  // namespace puna::text
