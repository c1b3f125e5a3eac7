#include "data/manifest.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/suggest.h"
#include "io/file.h"
#include "io/hash.h"
#include "io/text.h"

namespace puna::data {
namespace {

constexpr const char* kFormat = "puna-dataset";
constexpr int64_t kVersion = 1;
constexpr int64_t kMaxVocabSize = int64_t{1} << 31;
constexpr int64_t kMaxCount = int64_t{1} << 62;

/// The fields of one object of the manifest; each must be there, and no others.
class Fields {
 public:
  Fields(const Json& json, std::string where, std::vector<std::string> names) : json_(json), where_(std::move(where)) {
    if (!json.is_object()) fail(where_, "is not a JSON object; is this the manifest of a dataset?");
    for (const auto& [key, value] : json.items()) {
      if (std::find(names.begin(), names.end(), key) != names.end()) continue;
      const std::string nearest = nearest_name(key, names);
      fail(where_, "unknown key '{}'{}", io::printable(key),
           nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
    }
  }

  const Json& at(const char* key) const {
    const auto found = json_.find(key);
    if (found == json_.end()) fail(where_, "has no '{}'; is this the manifest of a dataset?", key);
    return *found;
  }
  std::string text(const char* key) const {
    if (!at(key).is_string()) fail(where_, "'{}' is not a string", key);
    return at(key).get<std::string>();
  }
  int64_t number(const char* key, int64_t min, int64_t max) const {
    const Json& value = at(key);
    const bool fits = value.is_number_integer() && (!value.is_number_unsigned() || value.get<uint64_t>() <= INT64_MAX);
    if (!fits || value.get<int64_t>() < min || value.get<int64_t>() > max)
      fail(where_, "'{}' is {}; expected {} to {}", key, io::printable(value.dump()), min, max);
    return value.get<int64_t>();
  }

 private:
  const Json& json_;
  std::string where_;
};

// It must name a plain file beside the manifest: a name with a path could read anything.
void check_file_name(const std::string& name, const std::string& where) {
  if (name.empty() || name == "." || name == ".." || name.find_first_of(std::string_view("/\\\0", 3)) != name.npos)
    fail(where, "the shard name '{}' is refused: it must be a plain file name beside the manifest",
         io::printable(name));
}

ShardEntry read_entry(const Json& json, const std::string& where) {
  const Fields fields(json, where, {"file", "hash", "documents", "tokens", "images"});
  ShardEntry entry{fields.text("file"), fields.text("hash"), fields.number("documents", 1, kMaxCount),
                   fields.number("tokens", 1, kMaxCount), fields.number("images", 0, kMaxCount)};
  check_file_name(entry.file, where);
  return entry;
}

}  // namespace

std::string Manifest::content_hash() const {
  io::Hasher hasher;
  hasher.update(std::as_bytes(std::span(encoding)));
  for (const ShardEntry& shard : shards) hasher.update(std::as_bytes(std::span(shard.hash)));
  return hasher.digest();
}

Manifest read_manifest(const std::filesystem::path& path) {
  const std::string where = path.string();
  const Json json = read_json_file(path);
  const Fields fields(json, where,
                      {"format", "version", "fingerprint", "encoding", "tokenizer", "vocab_size", "patch_token",
                       "content", "num_documents", "num_tokens", "num_images", "shards"});
  if (fields.text("format") != kFormat) fail(where, "is not the manifest of a dataset");
  if (const int64_t version = fields.number("version", 1, kMaxCount); version > kVersion)
    fail(where, "is of format version {}, this program knows {}; build the dataset again", version, kVersion);
  Manifest manifest{fields.text("fingerprint"), fields.text("encoding"), fields.text("tokenizer"), {}, {}};
  manifest.range.vocab_size = fields.number("vocab_size", 1, kMaxVocabSize);
  manifest.range.patch = fields.number("patch_token", -1, manifest.range.vocab_size - 1);
  const Json& shards = fields.at("shards");
  if (!shards.is_array()) fail(where, "'shards' is not a list");
  ShardEntry sum;
  for (const Json& shard : shards) {
    const ShardEntry& entry =
        manifest.shards.emplace_back(read_entry(shard, fmt::format("{}: shard {}", where, manifest.shards.size())));
    for (auto count : {&ShardEntry::documents, &ShardEntry::tokens, &ShardEntry::images})
      if (__builtin_add_overflow(sum.*count, entry.*count, &(sum.*count))) fail(where, "the counts are beyond 2^63");
  }
  const auto check = [&](const char* key, int64_t expected) {
    if (fields.number(key, 0, INT64_MAX) != expected)
      fail(where, "'{}' is not {}, the sum of the shards", key, expected);
  };
  check("num_documents", sum.documents);
  check("num_tokens", sum.tokens);
  check("num_images", sum.images);
  if (fields.text("content") != manifest.content_hash())
    fail(where, "'content' is not the hash of the shards' hashes; the manifest was changed, build the dataset again");
  return manifest;
}

void write_manifest(const std::filesystem::path& path, const Manifest& manifest) {
  OrderedJson json = {{"format", kFormat},
                      {"version", kVersion},
                      {"fingerprint", manifest.fingerprint},
                      {"encoding", manifest.encoding},
                      {"tokenizer", manifest.tokenizer},
                      {"vocab_size", manifest.range.vocab_size},
                      {"patch_token", manifest.range.patch},
                      {"content", manifest.content_hash()}};
  OrderedJson shards = OrderedJson::array();
  ShardEntry sum;
  for (const ShardEntry& shard : manifest.shards) {
    shards.push_back({{"file", shard.file},
                      {"hash", shard.hash},
                      {"documents", shard.documents},
                      {"tokens", shard.tokens},
                      {"images", shard.images}});
    sum.documents += shard.documents, sum.tokens += shard.tokens, sum.images += shard.images;
  }
  json["num_documents"] = sum.documents;
  json["num_tokens"] = sum.tokens;
  json["num_images"] = sum.images;
  json["shards"] = std::move(shards);
  io::write_file(path, json.dump(1, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
}

Shard open_shard(const std::filesystem::path& dir, const ShardEntry& entry, const TokenRange& range, bool verify) {
  const auto path = dir / entry.file;
  if (!io::path_exists(path)) fail(path.string(), "is missing, though the manifest names it; build the dataset again");
  if (verify && io::hash_of_file(path) != entry.hash)
    fail(path.string(), "is corrupt: its bytes are not those that were written; build the dataset again");
  Shard shard = Shard::open(path, range);
  if (shard.num_documents() != entry.documents || shard.num_tokens() != entry.tokens ||
      shard.num_images() != entry.images)
    fail(path.string(), "has {} documents, {} tokens and {} images; the manifest says {}, {} and {}",
         shard.num_documents(), shard.num_tokens(), shard.num_images(), entry.documents, entry.tokens, entry.images);
  return shard;
}

}  // namespace puna::data
