#include "tests/text/tiny_tokenizer.h"

#include <algorithm>

#include "text/split.h"
#include "text/utf8.h"

namespace puna::test {
namespace {

const std::vector<std::string> kSpecials = {
    "<|begin_of_text|>", "<|end_of_text|>", "<|header_start|>", "<|header_end|>",   "<|eom|>",
    "<|eot|>",           "<|image|>",       "<|image|>x",       "<|python_start|>", "<|python_end|>"};

struct MergePair {
  std::string left, right;
};

/// Every way to build the merged tokens of two earlier ones, in order.
std::vector<MergePair> tiny_merges() {
  std::vector<MergePair> merges;
  const auto& tokens = tiny_merged_tokens();
  const auto known = [&](const std::string& s) {
    return s.size() == 1 || std::find(tokens.begin(), tokens.end(), s) != tokens.end();
  };
  for (const auto& token : tokens) {
    for (size_t cut = 1; cut < token.size(); ++cut) {
      if (known(token.substr(0, cut)) && known(token.substr(cut)))
        merges.push_back({token.substr(0, cut), token.substr(cut)});
    }
  }
  return merges;
}

}  // namespace

std::string to_byte_level(std::string_view bytes) {
  std::string out;
  for (char c : bytes) {
    const auto byte = static_cast<uint32_t>(static_cast<uint8_t>(c));
    uint32_t code = byte;
    if (byte <= 0x20) code = 0x100 + byte;
    if (byte >= 0x7F && byte <= 0xA0) code = 0x121 + byte - 0x7F;
    if (byte == 0xAD) code = 0x143;
    text::append_utf8(out, code);
  }
  return out;
}

const std::vector<std::string>& tiny_merged_tokens() {
  static const std::vector<std::string> tokens = {"  ",   "aa",   "in",       "th",           "he",   "the", " the",
                                                  "\n\n", "aaaa", "an",       "and",          " and", "er",  "user",
                                                  "us",   "    ", "\xE6\xBC", "\xE6\xBC\xA2", "--",   "ing"};
  return tokens;
}

Json tiny_tokenizer_json() {
  Json json;
  json["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"}, {"pattern", {{"Regex", text::kSplitPattern}}}, {"behavior", "Isolated"}, {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}}}};
  Json& model = json["model"];
  model = {{"type", "BPE"}, {"ignore_merges", true}, {"merges", Json::array()}};
  int id = 0;
  for (int b = 0; b < 256; ++b) model["vocab"][to_byte_level(std::string(1, static_cast<char>(b)))] = id++;
  for (const auto& token : tiny_merged_tokens()) model["vocab"][to_byte_level(token)] = id++;
  for (const auto& merge : tiny_merges())
    model["merges"].push_back({to_byte_level(merge.left), to_byte_level(merge.right)});
  for (const auto& name : kSpecials)
    json["added_tokens"].push_back({{"id", id++}, {"content", name}, {"special", true}});
  return json;
}

Json tiny_gguf_metadata() {
  const Json json = tiny_tokenizer_json();
  std::vector<std::string> tokens(json["model"]["vocab"].size());
  for (const auto& [text, id] : json["model"]["vocab"].items()) tokens[id.get<size_t>()] = text;
  std::vector<int> types(tokens.size(), 1);
  for (const auto& name : kSpecials) {
    tokens.push_back(name);
    types.push_back(3);
  }
  std::vector<std::string> merges;
  for (const auto& merge : json["model"]["merges"])
    merges.push_back(merge[0].get<std::string>() + ' ' + merge[1].get<std::string>());
  return {{"tokenizer.ggml.model", "gpt2"},
          {"tokenizer.ggml.pre", "llama4"},
          {"tokenizer.ggml.tokens", tokens},
          {"tokenizer.ggml.token_type", types},
          {"tokenizer.ggml.merges", merges}};
}

}  // namespace puna::test
