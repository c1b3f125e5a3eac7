// Meta's rank file and GGUF metadata.
#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "io/base64.h"
#include "io/file.h"
#include "text/byte_level.h"
#include "text/special_names.h"
#include "text/tokenizer_impl.h"

namespace puna::text {
namespace {

constexpr int64_t kMaxRankFileBytes = 64 << 20;

struct RankLine {
  std::string bytes;
  size_t rank;
};

RankLine parse_rank_line(std::string_view line, size_t number, std::string_view where) {
  const size_t space = line.find(' ');
  if (space == std::string_view::npos)
    fail(where, "line {} is not 'base64 rank'; is this Meta's tokenizer.model?", number);
  if (space > (kMaxTokenBytes + 2) / 3 * 4)
    fail(where, "line {}: the token has more than {} bytes", number, kMaxTokenBytes);
  auto bytes = io::decode_base64(line.substr(0, space));
  if (!bytes) fail(where, "line {}: '{}' is not base64", number, line.substr(0, std::min<size_t>(space, 40)));
  const std::string_view digits = line.substr(space + 1);
  RankLine result{std::move(*bytes), 0};
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), result.rank);
  if (ec != std::errc() || end != digits.data() + digits.size())
    fail(where, "line {}: '{}' is not a rank", number, digits.substr(0, 40));
  if (result.rank >= kMaxTokens)
    fail(where, "line {}: rank {} is over the limit of {}", number, result.rank, kMaxTokens);
  return result;
}

}  // namespace

BytePairModel read_rank_file(const std::filesystem::path& path, const std::vector<std::string>& specials) {
  TokenList list;
  const std::string where = path.string();
  const std::string text = io::read_file(path, kMaxRankFileBytes);
  std::string_view rest = text;
  for (size_t number = 1; !rest.empty(); ++number) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) continue;
    RankLine parsed = parse_rank_line(line, number, where);
    if (parsed.rank >= list.tokens.size()) list.tokens.resize(parsed.rank + 1);
    if (!list.tokens[parsed.rank].empty()) fail(where, "line {}: rank {} is given twice", number, parsed.rank);
    list.tokens[parsed.rank] = std::move(parsed.bytes);
  }
  for (size_t i = 0; i < list.tokens.size(); ++i) {
    if (list.tokens[i].empty())
      fail(where, "rank {} is missing among {} ranks; is the download complete?", i, list.tokens.size());
  }
  const auto names = specials.empty() ? meta_special_names() : specials;
  list.is_special.assign(list.tokens.size(), 0);
  list.tokens.insert(list.tokens.end(), names.begin(), names.end());
  list.is_special.resize(list.tokens.size(), 1);
  Vocabulary vocabulary(list, where);
  MergeTable merges(merges_from_ranks(vocabulary), where);
  return {std::move(vocabulary), std::move(merges)};
}

namespace {

const Json& gguf_array(const Json& metadata, const std::string& key, std::string_view where) {
  const auto entry = metadata.find(key);
  if (entry == metadata.end() || !entry->is_array())
    fail(where, "metadata '{}' is not there or no array; a tokenizer needs it", key);
  return *entry;
}

void require_gguf_name(const Json& metadata, const std::string& key, std::initializer_list<std::string_view> known,
                       std::string_view where) {
  const auto entry = metadata.find(key);
  const std::string value = entry != metadata.end() && entry->is_string() ? entry->get<std::string>() : "";
  if (std::find(known.begin(), known.end(), value) == known.end())
    fail(where, "metadata '{}' is '{}', expected '{}'; only Llama 4's tokenizer is supported", key, value.substr(0, 80),
         *known.begin());
}

constexpr int kGgufNormalToken = 1;
constexpr int kGgufByteToken = 6;

}  // namespace

BytePairModel read_gguf_tokenizer(const Json& metadata, std::string_view where) {
  TokenList list;
  if (!metadata.is_object()) fail(where, "the metadata is no object");
  require_gguf_name(metadata, "tokenizer.ggml.model", {"gpt2"}, where);
  require_gguf_name(metadata, "tokenizer.ggml.pre", {"llama4", "gpt-4o"}, where);
  const Json& tokens = gguf_array(metadata, "tokenizer.ggml.tokens", where);
  const Json& types = gguf_array(metadata, "tokenizer.ggml.token_type", where);
  if (tokens.size() != types.size())
    fail(where, "{} tokens but {} token types; the two must be equal", tokens.size(), types.size());
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (!tokens[i].is_string() || !types[i].is_number_integer()) fail(where, "token {} or its type is malformed", i);
    const auto& text = tokens[i].get_ref<const std::string&>();
    const auto type = types[i].get<int64_t>();
    const bool ordinary = type == kGgufNormalToken || type == kGgufByteToken;
    auto bytes = ordinary ? bytes_from_byte_level(text) : text;
    if (!bytes) fail(where, "token {} '{}' has characters outside the byte-level alphabet", i, text.substr(0, 80));
    list.tokens.push_back(std::move(*bytes));
    list.is_special.push_back(!ordinary);
  }
  Vocabulary vocabulary(list, where);
  MergeTable merges(read_merges(gguf_array(metadata, "tokenizer.ggml.merges", where), vocabulary, where), where);
  return {std::move(vocabulary), std::move(merges)};
}

}  // namespace puna::text
