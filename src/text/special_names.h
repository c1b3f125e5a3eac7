// Names of Llama 4's special tokens, in the order of their ids after the ranks (SPEC 6).
#pragma once

#include <string>
#include <vector>

namespace puna::text {

/// The 2,048 special tokens that follow the ranks of Meta's rank file.
std::vector<std::string> meta_special_names();

/// Those of them that text, chats, images and tools use, in the same order: 21 for small vocabularies.
std::vector<std::string> compact_special_names();

}  // namespace puna::text
