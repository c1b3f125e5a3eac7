#include "text/tokenizer.h"

#include <algorithm>
#include <system_error>

#include "base/error.h"
#include "text/split.h"
#include "text/tokenizer_impl.h"
#include "text/unicode_classes.h"
#include "text/utf8.h"

namespace puna::text {
namespace {

// Meta's Tokenizer cuts its input into windows of so many characters, and in each window every run of white space, or
// of anything else, that is longer than this. The cuts move token edges, so they are part of the format.
constexpr int64_t kWindowChars = 400'000;
constexpr int64_t kMaxRunChars = 25'000;

constexpr int64_t kMaxTokenizerJsonBytes = 256 << 20;

/// Calls `use` with each stretch of `text` between Meta's cuts. An invalid byte counts as one visible character.
template <typename Use>
void for_each_cut(std::string_view text, const Use& use) {
  if (text.size() <= static_cast<size_t>(kMaxRunChars)) {
    use(text);
    return;
  }
  const CharClass* classes = char_classes();
  size_t start = 0;
  int64_t window = 0, run = 0;
  bool run_is_space = false;
  for (size_t i = 0; i < text.size();) {
    const Utf8Char c = read_utf8(text.substr(i));
    const bool is_space = c.valid && is_python_space(c.code_point, classes);
    if (window == kWindowChars || (run == kMaxRunChars && is_space == run_is_space)) {
      use(text.substr(start, i - start));
      start = i;
      if (window == kWindowChars) window = 0;
      run = 0;
    }
    run = is_space == run_is_space ? run + 1 : 1;
    run_is_space = is_space;
    ++window;
    i += static_cast<size_t>(c.length);
  }
  use(text.substr(start));
}

bool is_blank(std::string_view bytes) { return bytes.find_first_not_of(" \n\t") == std::string_view::npos; }

}  // namespace

void BytePairModel::encode_piece(std::string_view piece, std::vector<TokenId>& out) const {
  if (whole_pieces_first || piece.size() == 1) {
    if (const TokenId id = vocabulary.find(piece); id != kNoToken) {
      out.push_back(id);
      return;
    }
  }
  merge_piece(piece, vocabulary, merges, out);
}

/// Text that is not valid UTF-8 goes as in the tiktoken library's _encode_bytes: what follows the last whole piece
/// before the first invalid byte (and the blank tokens before it) is one piece.
void BytePairModel::encode_ordinary(std::string_view text, std::vector<TokenId>& out) const {
  const size_t valid = valid_utf8_prefix(text);
  const size_t begin = out.size();
  size_t last_piece = begin;  // index in `out` of the last piece's first token
  for (size_t i = 0; i < valid;) {
    const size_t n = next_piece(text.substr(i, valid - i));
    last_piece = out.size();
    encode_piece(text.substr(i, n), out);
    i += n;
  }
  if (valid == text.size()) return;
  const auto blank = [&](size_t i) { return is_blank(vocabulary.bytes(out[i])); };
  if (last_piece < out.size() && blank(last_piece)) {
    while (last_piece > begin && blank(last_piece - 1)) --last_piece;
  }
  size_t tail = text.size() - valid;
  for (size_t i = last_piece; i < out.size(); ++i) tail += vocabulary.bytes(out[i]).size();
  out.resize(last_piece);
  encode_piece(text.substr(text.size() - tail), out);
}

void BytePairModel::encode_parsing_specials(std::string_view text, std::vector<TokenId>& out) const {
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    const TokenId id = vocabulary.special_at(text.substr(i));
    if (id == kNoToken) {
      ++i;
      continue;
    }
    encode_ordinary(text.substr(start, i - start), out);
    out.push_back(id);
    i += vocabulary.bytes(id).size();
    start = i;
  }
  encode_ordinary(text.substr(start), out);
}

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
  std::error_code ec;
  if (std::filesystem::exists(dir / "tokenizer.json", ec)) return from_hf_json(dir / "tokenizer.json");
  if (std::filesystem::exists(dir / "tokenizer.model", ec)) return from_rank_file(dir / "tokenizer.model");
  fail(dir.string(), "no tokenizer here; copy tokenizer.json or tokenizer.model of the model into this directory");
}

std::vector<TokenId> Tokenizer::encode(std::string_view text, Specials specials) const {
  std::vector<TokenId> out;
  out.reserve(text.size() / 4 + 8);
  for_each_cut(text, [&](std::string_view stretch) {
    if (specials == Specials::kParse) {
      impl_->encode_parsing_specials(stretch, out);
    } else {
      impl_->encode_ordinary(stretch, out);
    }
  });
  return out;
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
