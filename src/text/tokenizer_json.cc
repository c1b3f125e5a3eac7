// Hugging Face tokenizer.json, and the merge lists that GGUF shares with it.
#include <algorithm>

#include "base/error.h"
#include "text/byte_level.h"
#include "text/split.h"
#include "text/tokenizer_impl.h"

namespace puna::text {
namespace {

const Json& member(const Json& object, const char* key) {
  static const Json kNull;
  if (!object.is_object()) return kNull;
  const auto entry = object.find(key);
  return entry == object.end() ? kNull : *entry;
}

/// Null, false or "": absent. Anything else is a feature that byte-level BPE of Llama 4 does not have.
void require_absent(const Json& model, const char* key, std::string_view where) {
  const Json& value = member(model, key);
  if (value.is_null() || value == false || (value.is_string() && value.get_ref<const std::string&>().empty())) return;
  fail(where, "'{}' is {}, expected none; only Llama 4's byte-level BPE is supported", key, value.dump().substr(0, 80));
}

/// The sequence [split by the pattern, bytes to characters] and nothing else.
void check_pre_tokenizer(const Json& json, std::string_view where) {
  const Json& steps = member(member(json, "pre_tokenizer"), "pretokenizers");
  const bool two = steps.is_array() && steps.size() == 2 && member(steps[0], "type") == "Split" &&
                   member(steps[1], "type") == "ByteLevel";
  if (!two) fail(where, "'pre_tokenizer' is not a Split and a ByteLevel step; this is not a Llama 4 tokenizer");
  if (member(member(steps[0], "pattern"), "Regex") != std::string(kSplitPattern))
    fail(where, "the split pattern is not that of Llama 4; only Llama 4's tokenizer is supported");
  if (member(steps[1], "add_prefix_space") == true || member(steps[1], "use_regex") == true)
    fail(where, "'pre_tokenizer' adds a prefix space or splits again; this is not a Llama 4 tokenizer");
}

/// The id of `token`, and room for it in the list.
size_t checked_id(const Json& id, std::string_view token, TokenList& list, std::string_view where) {
  const bool in_range = id.is_number_integer() && id >= 0 && id < kMaxTokens;
  if (!in_range)
    fail(where, "token '{}' has the id {}, expected 0 to {}", token.substr(0, 80), id.dump().substr(0, 40),
         kMaxTokens - 1);
  const auto i = id.get<size_t>();
  if (i >= list.tokens.size()) {
    list.tokens.resize(i + 1);
    list.is_special.resize(i + 1);
  }
  return i;
}

TokenList read_tokens(const Json& json, std::string_view where) {
  TokenList list;
  const Json& added = member(json, "added_tokens");
  if (!added.is_null() && !added.is_array()) fail(where, "'added_tokens' is not an array");
  for (const Json& token : added) {
    const Json& content = member(token, "content");
    if (!content.is_string()) fail(where, "an added token has no 'content'");
    const auto& name = content.get_ref<const std::string&>();
    const size_t i = checked_id(member(token, "id"), name, list, where);
    if (list.is_special[i]) fail(where, "the id {} is given to two added tokens", i);
    list.tokens[i] = name;
    list.is_special[i] = 1;
  }
  const Json& vocabulary = member(member(json, "model"), "vocab");
  if (!vocabulary.is_object()) fail(where, "'model.vocab' is not an object of token to id");
  for (const auto& [text, id] : vocabulary.items()) {
    const size_t i = checked_id(id, text, list, where);
    if (list.is_special[i] && list.tokens[i] == text) continue;  // an added token may be listed here too
    auto bytes = bytes_from_byte_level(text);
    if (!bytes) fail(where, "token '{}' has characters outside the byte-level alphabet", text.substr(0, 80));
    if (list.is_special[i] || !list.tokens[i].empty())
      fail(where, "the id {} is given to two tokens, one of them '{}'", i, text.substr(0, 80));
    list.tokens[i] = std::move(*bytes);
  }
  return list;
}

}  // namespace

std::vector<Merge> read_merges(const Json& list, const Vocabulary& vocabulary, std::string_view where) {
  if (!list.is_array()) fail(where, "the merges are not an array");
  const auto token_of = [&](std::string_view text, size_t i) {
    const auto bytes = bytes_from_byte_level(text);
    const TokenId id = bytes && !bytes->empty() ? vocabulary.find(*bytes) : kNoToken;
    if (id == kNoToken) fail(where, "merge {}: '{}' is not in the vocabulary", i, text.substr(0, 80));
    return id;
  };
  std::vector<Merge> merges;
  merges.reserve(list.size());
  std::string joined;
  for (size_t i = 0; i < list.size(); ++i) {
    const Json& entry = list[i];
    std::string_view left, right;
    if (entry.is_string()) {
      left = entry.get_ref<const std::string&>();
      const size_t space = left.find(' ');
      if (space == std::string_view::npos) fail(where, "merge {}: '{}' is not two tokens", i, left.substr(0, 80));
      right = left.substr(space + 1);
      left = left.substr(0, space);
    } else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string()) {
      left = entry[0].get_ref<const std::string&>();
      right = entry[1].get_ref<const std::string&>();
    } else {
      fail(where, "merge {} is not two tokens", i);
    }
    const TokenId left_id = token_of(left, i), right_id = token_of(right, i);
    joined.assign(vocabulary.bytes(left_id)).append(vocabulary.bytes(right_id));
    const TokenId merged = vocabulary.find(joined);
    if (merged == kNoToken) fail(where, "merge {}: the vocabulary has no token '{}{}'", i, left, right);
    merges.push_back({left_id, right_id, merged, static_cast<uint32_t>(i)});
  }
  return merges;
}

BytePairModel read_hf_tokenizer(const Json& json, std::string_view where) {
  const Json& model = member(json, "model");
  if (!model.is_object()) fail(where, "no object 'model'; is this a tokenizer.json?");
  if (const Json& type = member(model, "type"); !type.is_null() && type != "BPE")
    fail(where, "'model.type' is {}, expected \"BPE\"", type.dump().substr(0, 80));
  for (const char* key : {"dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"})
    require_absent(model, key, where);
  require_absent(json, "normalizer", where);
  check_pre_tokenizer(json, where);
  Vocabulary vocabulary(read_tokens(json, where), where);
  MergeTable merges(read_merges(member(model, "merges"), vocabulary, where), where);
  return {std::move(vocabulary), std::move(merges), member(model, "ignore_merges") == true};
}

}  // namespace puna::text
