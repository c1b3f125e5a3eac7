#include "text/tokenizer.h"

#include <system_error>

#include "base/error.h"
#include "io/file.h"
#include "io/gguf.h"
#include "text/encoder.h"
#include "text/tokenizer_impl.h"
#include "text/utf8.h"

namespace puna::text {
namespace {

constexpr int64_t kMaxTokenizerJsonBytes = 256 << 20;

}  // namespace

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;

std::shared_ptr<const Tokenizer> Tokenizer::from_rank_file(const std::filesystem::path& path,
                                                           const std::vector<std::string>& specials) {
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::make_unique<Impl>(Impl{read_rank_file(path, specials)})));
}

std::shared_ptr<const Tokenizer> Tokenizer::from_hf_json(const std::filesystem::path& path) {
  return from_hf_json(read_json_file(path, kMaxTokenizerJsonBytes), path.string());
}

std::shared_ptr<const Tokenizer> Tokenizer::from_hf_json(const Json& json, std::string_view where) {
  return std::shared_ptr<const Tokenizer>(new Tokenizer(std::make_unique<Impl>(Impl{read_hf_tokenizer(json, where)})));
}

std::shared_ptr<const Tokenizer> Tokenizer::from_gguf(const Json& metadata, std::string_view where) {
  return std::shared_ptr<const Tokenizer>(
      new Tokenizer(std::make_unique<Impl>(Impl{read_gguf_tokenizer(metadata, where)})));
}

std::shared_ptr<const Tokenizer> Tokenizer::from_directory(const std::filesystem::path& dir) {
  if (io::path_exists(dir / "tokenizer.json")) return from_hf_json(dir / "tokenizer.json");
  if (io::path_exists(dir / "tokenizer.model")) return from_rank_file(dir / "tokenizer.model");
  fail(dir.string(), "no tokenizer here; copy tokenizer.json or tokenizer.model of the model into this directory");
}

std::shared_ptr<const Tokenizer> Tokenizer::open(const std::filesystem::path& path) {
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) return from_directory(path);
  if (path.extension() == ".json") return from_hf_json(path);
  if (path.extension() == ".gguf") return from_gguf(io::open_gguf(path).metadata, path.string());
  return from_rank_file(path);
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, Specials specials) const {
  return encode_text(*impl_, text, specials);
}

std::string Tokenizer::decode(std::span<const TokenId> ids) const {
  std::string out;
  for (TokenId id : ids) out += token_bytes(id);
  return out;
}

std::string_view Tokenizer::token_bytes(TokenId id) const {
  if (id < 0 || id >= vocab_size())
    fail("tokenizer", "token id {} is outside this vocabulary of {} tokens", id, vocab_size());
  return impl_->vocabulary.bytes(id);
}

int64_t Tokenizer::vocab_size() const { return static_cast<int64_t>(impl_->vocabulary.size()); }

bool Tokenizer::is_special(TokenId id) const {
  return id >= 0 && id < vocab_size() && impl_->vocabulary.is_special(id);
}

std::optional<TokenId> Tokenizer::special(std::string_view name) const {
  const TokenId id = impl_->vocabulary.find_special(name);
  return id == kNoToken ? std::nullopt : std::optional(id);
}

StreamDecoder::StreamDecoder(std::shared_ptr<const Tokenizer> tokenizer) : tokenizer_(std::move(tokenizer)) {}

std::string StreamDecoder::push(TokenId id) {
  pending_ += tokenizer_->token_bytes(id);
  size_t consumed = 0;
  std::string text = replace_invalid_utf8_prefix(pending_, consumed);
  pending_.erase(0, consumed);
  return text;
}

std::string StreamDecoder::finish() {
  std::string text = replace_invalid_utf8(pending_);
  pending_.clear();
  return text;
}

}  // namespace puna::text
