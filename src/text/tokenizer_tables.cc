#include "text/tokenizer_tables.h"

#include "base/json.h"
#include "io/file.h"
#include "io/gguf.h"
#include "text/byte_level.h"
#include "text/tokenizer_impl.h"

namespace puna::text {
namespace {

namespace fs = std::filesystem;
constexpr int64_t kMaxTokenizerJsonBytes = 256 << 20;

BytePairModel read(const fs::path& path) {
  std::error_code ec;
  if (fs::is_directory(path, ec))
    return read(io::path_exists(path / "tokenizer.json") ? path / "tokenizer.json" : path / "tokenizer.model");
  if (path.extension() == ".json")
    return read_hf_tokenizer(read_json_file(path, kMaxTokenizerJsonBytes), path.string());
  if (path.extension() == ".gguf") return read_gguf_tokenizer(io::open_gguf(path).metadata, path.string());
  return read_rank_file(path, {});
}

}  // namespace

TokenizerTables tokenizer_tables(const fs::path& path) {
  const BytePairModel model = read(path);
  TokenizerTables tables;
  for (size_t i = 0; i < model.vocabulary.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    tables.tokens.emplace_back(model.vocabulary.bytes(id));
    tables.is_special.push_back(model.vocabulary.is_special(id));
  }
  for (const Merge& merge : model.merges.list())
    tables.merges.push_back(byte_level_from_bytes(model.vocabulary.bytes(merge.left)) + ' ' +
                            byte_level_from_bytes(model.vocabulary.bytes(merge.right)));
  return tables;
}

}  // namespace puna::text
