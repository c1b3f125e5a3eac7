#include "data/vocabulary.h"

#include <vector>

#include "base/error.h"
#include "data/dataset.h"
#include "data/tensors.h"
#include "io/hash.h"
#include "io/safetensors.h"

namespace puna::data {
namespace {

constexpr const char* kFileName = "vocabulary.safetensors";

template <typename Source>
std::string hash_of_tokens(const Source& tokens, int64_t size) {
  io::Hasher hasher;
  for (TokenId id = 0; id < size; ++id) {
    const std::string_view bytes = tokens.bytes(id);
    const uint64_t head = bytes.size() * 2 + (tokens.is_special(id) ? 1 : 0);
    hasher.update(std::as_bytes(std::span(&head, 1)));
    hasher.update(std::as_bytes(std::span(bytes)));
  }
  return hasher.digest();
}

/// A tokenizer under the names that StoredVocabulary has.
struct Tokens {
  const text::Tokenizer& tokenizer;
  std::string_view bytes(TokenId id) const { return tokenizer.token_bytes(id); }
  bool is_special(TokenId id) const { return tokenizer.is_special(id); }
};

}  // namespace

std::string tokenizer_hash(const text::Tokenizer& tokenizer) {
  return hash_of_tokens(Tokens{tokenizer}, tokenizer.vocab_size());
}

void StoredVocabulary::write(const std::filesystem::path& dir, const text::Tokenizer& tokenizer) {
  std::vector<int64_t> begin = {0};
  std::string bytes;
  std::vector<uint8_t> special;
  for (TokenId id = 0; id < tokenizer.vocab_size(); ++id) {
    bytes += tokenizer.token_bytes(id);
    begin.push_back(static_cast<int64_t>(bytes.size()));
    special.push_back(tokenizer.is_special(id) ? 1 : 0);
  }
  io::SafetensorsWriter writer(dir / kFileName, {{"begin", DType::I64, {tokenizer.vocab_size() + 1}},
                                                 {"bytes", DType::U8, {static_cast<int64_t>(bytes.size())}},
                                                 {"special", DType::U8, {tokenizer.vocab_size()}}});
  writer.write(std::as_bytes(std::span(begin)));
  writer.write(std::as_bytes(std::span(bytes)));
  writer.write(std::as_bytes(std::span(special)));
  writer.commit();
}

StoredVocabulary StoredVocabulary::open(const std::filesystem::path& dir, const std::string& tokenizer_hash) {
  const auto path = dir / kFileName;
  const std::string where = path.string();
  StoredVocabulary stored;
  stored.file_ = io::open_safetensors(path);
  stored.begin_ = tensor_of<int64_t>(stored.file_, "begin", DType::I64, 0, where);
  stored.bytes_ = tensor_of<char>(stored.file_, "bytes", DType::U8, 0, where);
  stored.special_ = tensor_of<uint8_t>(stored.file_, "special", DType::U8, 0, where);
  check_offsets(stored.begin_, stored.bytes_.size(), false, "begin", where);
  if (stored.begin_.size() != stored.special_.size() + 1)
    fail(where, "corrupt: the sizes of its tensors contradict each other");
  if (hash_of_tokens(stored, stored.size()) != tokenizer_hash)
    fail(where, "is corrupt, or of another dataset: it is not the vocabulary that the manifest names");
  return stored;
}

std::string_view StoredVocabulary::bytes(TokenId id) const {
  PUNA_CHECK(id >= 0 && id < size(), "token {} of {}", id, size());
  const auto i = static_cast<size_t>(id);
  return {bytes_.data() + begin_[i], static_cast<size_t>(begin_[i + 1] - begin_[i])};
}

bool StoredVocabulary::is_special(TokenId id) const {
  PUNA_CHECK(id >= 0 && id < size(), "token {} of {}", id, size());
  return special_[static_cast<size_t>(id)] == 1;
}

}  // namespace puna::data
