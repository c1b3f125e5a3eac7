#include "train/train_tokenizer.h"

#include <algorithm>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/hash.h"
#include "text/bpe_trainer.h"
#include "text/special_names.h"
#include "text/tokenizer_write.h"
#include "train/fields.h"
#include "train/prepare.h"
#include "train/recipe_fields.h"

namespace puna::train {
namespace {

namespace fs = std::filesystem;

// So that one large source does not decide the whole vocabulary.
constexpr int64_t kMaxBytesPerSource = 8 << 20;
constexpr const char* kMarker = "trained_from.json";

void count_source(const SourceConfig& source, std::string_view where, text::PieceCounts& pieces,
                  const std::atomic<bool>* interrupt) {
  const auto records = open_records(source, where);
  Progress progress("reading " + source.name, 0, Progress::Unit::kBytes);
  int64_t bytes = 0;
  while (auto record = records->next()) {
    stop_if_interrupted(interrupt);
    for (const text::Message& message : record->messages)
      for (const text::Part& part : message.parts)
        if (const auto* piece = std::get_if<text::TextPart>(&part)) {
          pieces.add_text(piece->text);
          bytes += static_cast<int64_t>(piece->text.size());
        }
    const double of_most = static_cast<double>(bytes) / static_cast<double>(kMaxBytesPerSource);
    progress.set(bytes, std::max(records->progress(), of_most));
    if (bytes > kMaxBytesPerSource) break;
  }
}

// What decides the vocabulary.
Json origin_of(const Recipe& recipe) {
  Json origin = {{"vocab_size", recipe.model.vocab_size}, {"single_digits", recipe.model.single_digits}};
  for (const SourceConfig& source : recipe.sources)
    if (source.dataset.empty() && !source.validation)
      origin["fingerprints"].push_back(open_records(source, recipe.path.string())->fingerprint());
  return origin;
}

}  // namespace

void train_tokenizer(const Recipe& recipe, const fs::path& dir, bool begun, const std::atomic<bool>* interrupt) {
  const fs::path marker = dir / kMarker;
  const bool trained = io::path_exists(marker);
  if (trained && begun) return;
  const std::string origin = origin_of(recipe).dump() + "\n";
  if (trained && io::read_file(marker, 1 << 20) == origin) return;
  const std::vector<std::string> specials = text::compact_special_names();
  const auto num_specials = static_cast<int64_t>(specials.size());
  constexpr int64_t kNumBytes = 256;
  if (recipe.model.vocab_size < kNumBytes + num_specials)
    fail(recipe.path.string(), "'model.vocab_size' is {}; 256 bytes and {} special tokens alone need {}",
         recipe.model.vocab_size, num_specials, kNumBytes + num_specials);
  text::PieceCounts pieces;
  for (const SourceConfig& source : recipe.sources)
    if (source.dataset.empty() && !source.validation) count_source(source, recipe.path.string(), pieces, interrupt);
  if (pieces.num_distinct() == 0)
    fail(recipe.path.string(),
         "no source has text to train a tokenizer on; set 'model.tokenizer' to one that is there");
  text::BpeOptions options;
  options.interrupt = interrupt;
  options.num_tokens = recipe.model.vocab_size - num_specials;
  options.single_digits = recipe.model.single_digits;
  const text::BpeResult result = text::train_bpe(pieces, options);
  if (static_cast<int64_t>(result.tokens.size()) < options.num_tokens)
    fail(recipe.path.string(), "the sources give only {} tokens; 'model.vocab_size' can be {} at most",
         result.tokens.size(), static_cast<int64_t>(result.tokens.size()) + num_specials);
  fs::remove_all(dir);  // it may hold a tokenizer of another recipe
  io::make_directories(dir);
  text::write_tokenizer(dir, result.tokens, specials);
  io::write_file(marker, origin);
}

}  // namespace puna::train
