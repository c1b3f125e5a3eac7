#include "text/tokenizer_write.h"

#include <fmt/format.h>

#include "base/error.h"
#include "io/base64.h"
#include "io/file.h"
#include "text/bpe.h"
#include "text/byte_level.h"
#include "text/split.h"
#include "text/vocabulary.h"

namespace puna::text {

const std::string_view kChatTemplate =
    "{{- bos_token }}{%- for m in messages %}{{- '<|header_start|>' + m['role'] + '<|header_end|>\\n\\n' }}"
    "{%- if m['content'] is string %}{{- m['content'] }}{%- else %}{%- for c in m['content'] %}"
    "{%- if c['type'] == 'image' %}{{- '<|image|>' }}{%- else %}{{- c['text'] }}{%- endif %}{%- endfor %}{%- endif %}"
    "{{- '<|eot|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|header_start|>assistant<|header_end|>\\n\\n' }}{%- endif %}";

namespace {

Json merges_of(const std::vector<std::string>& tokens) {
  Vocabulary vocabulary({tokens, std::vector<uint8_t>(tokens.size())}, "tokenizer");
  Json merges = Json::array();
  for (const Merge& merge : merges_from_ranks(vocabulary))
    merges.push_back(byte_level_from_bytes(vocabulary.bytes(merge.left)) + ' ' +
                     byte_level_from_bytes(vocabulary.bytes(merge.right)));
  return merges;
}

void write_json(const std::filesystem::path& path, const Json& json) { io::write_file(path, json.dump(2) + "\n"); }

}  // namespace

std::string rank_file(const std::vector<std::string>& tokens) {
  std::string out;
  for (size_t rank = 0; rank < tokens.size(); ++rank)
    out += fmt::format("{} {}\n", io::encode_base64(tokens[rank]), rank);
  return out;
}

Json hf_tokenizer_json(const std::vector<std::string>& tokens, const std::vector<std::string>& specials) {
  Json vocabulary = Json::object(), added = Json::array();
  for (size_t rank = 0; rank < tokens.size(); ++rank) vocabulary[byte_level_from_bytes(tokens[rank])] = rank;
  for (size_t i = 0; i < specials.size(); ++i)
    added.push_back({{"id", tokens.size() + i},
                     {"content", specials[i]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  const Json split = {
      {"type", "Split"}, {"pattern", {{"Regex", kSplitPattern}}}, {"behavior", "Isolated"}, {"invert", false}};
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", Json::array({split, byte_level})}}},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"continuing_subword_prefix", nullptr},
            {"end_of_word_suffix", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", true},
            {"vocab", vocabulary},
            {"merges", merges_of(tokens)}}}};
}

Json hf_tokenizer_config(std::optional<int64_t> max_length) {
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"bos_token", "<|begin_of_text|>"},
                 {"eos_token", "<|eot|>"},
                 {"pad_token", "<|finetune_right_pad|>"},
                 {"clean_up_tokenization_spaces", false},
                 {"chat_template", kChatTemplate}};
  if (max_length) config["model_max_length"] = *max_length;
  return config;
}

void write_tokenizer(const std::filesystem::path& dir, const std::vector<std::string>& tokens,
                     const std::vector<std::string>& specials) {
  io::write_file(dir / "tokenizer.model", rank_file(tokens));
  write_json(dir / "tokenizer.json", hf_tokenizer_json(tokens, specials));
  write_json(dir / "tokenizer_config.json", hf_tokenizer_config(std::nullopt));
  io::write_file(dir / "chat_template.jinja", kChatTemplate);
}

void write_tokenizer(const std::filesystem::path& dir, const TokenizerTables& tokenizer, std::string_view where) {
  std::vector<std::string> tokens, specials;
  for (size_t i = 0; i < tokenizer.tokens.size(); ++i) {
    if (!tokenizer.is_special[i] && !specials.empty())
      fail(where, "token {} follows special ones; such a vocabulary has no tokenizer.json", i);
    (tokenizer.is_special[i] ? specials : tokens).push_back(tokenizer.tokens[i]);
  }
  write_tokenizer(dir, tokens, specials);
}

}  // namespace puna::text
