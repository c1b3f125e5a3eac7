// src/text: text to token ids and back, and the chat formats around it.
// No tensors; images appear here only as the tokens that stand for their tiles.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace puna::text {

using TokenId = int32_t;

/// Whether special-token strings inside text become special tokens. User text never parses them.
enum class Specials { kAsText, kParse };

/// Byte-level BPE with Llama 4's split pattern (SPEC 7). Immutable and safe to share between threads.
class Tokenizer {
 public:
  /// Meta's rank file; the special tokens follow the ranks, Meta's list of 2,048 when `specials` is empty.
  static std::shared_ptr<const Tokenizer> from_rank_file(const std::filesystem::path& path,
                                                         const std::vector<std::string>& specials = {});
  /// Hugging Face tokenizer.json (BPE, byte level).
  static std::shared_ptr<const Tokenizer> from_hf_json(const std::filesystem::path& path);
  static std::shared_ptr<const Tokenizer> from_hf_json(const Json& json, std::string_view where);
  /// GGUF metadata (tokenizer.ggml.*, model "gpt2", pre "llama4").
  static std::shared_ptr<const Tokenizer> from_gguf(const Json& metadata, std::string_view where);
  /// Whichever of the above a file or directory is, by its name: *.json, *.gguf, a directory, else a rank file.
  static std::shared_ptr<const Tokenizer> open(const std::filesystem::path& path);
  /// The tokenizer beside a checkpoint: tokenizer.json, else tokenizer.model; Error when neither is there.
  static std::shared_ptr<const Tokenizer> from_directory(const std::filesystem::path& dir);

  /// Appends nothing: no <|begin_of_text|>. Invalid UTF-8 is encoded byte-exactly.
  std::vector<TokenId> encode(std::string_view text, Specials specials = Specials::kAsText) const;

  /// The bytes of the ids laid end to end (may be invalid UTF-8). Special tokens yield their names. Throws Error on an
  /// id outside the vocabulary.
  std::string decode(std::span<const TokenId> ids) const;
  std::string_view token_bytes(TokenId id) const;

  int64_t vocab_size() const;
  bool is_special(TokenId id) const;
  /// The id of a special token such as "<|eot|>"; nullopt when this vocabulary has none.
  std::optional<TokenId> special(std::string_view name) const;

  ~Tokenizer();

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Decodes a stream of tokens, holding back bytes until they complete a UTF-8 character.
class StreamDecoder {
 public:
  explicit StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer);
  /// The text that this token completes; may be empty.
  std::string push(TokenId id);
  /// What was held back, invalid sequences as U+FFFD.
  std::string finish();

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string pending_;
};

}  // namespace puna::text
