#include "text/encoder.h"

#include <algorithm>
#include <bit>

#include "text/split.h"
#include "text/unicode_classes.h"
#include "text/utf8.h"

namespace puna::text {
namespace {

// Meta's Tokenizer cuts its input into windows of so many characters, and in each window every run of white space, or
// of anything else, that is longer than this. The cuts move token edges, so they are part of the format.
constexpr int64_t kWindowChars = 400'000;
constexpr int64_t kMaxRunChars = 25'000;

/// Calls `use` with each stretch of a window between cuts. An invalid byte counts as one visible character.
template <typename Use>
void for_each_run_cut(std::string_view window, const Use& use) {
  const CharClass* classes = char_classes();
  size_t start = 0;
  int64_t run = 0;
  bool run_is_space = false;
  for (size_t i = 0; i < window.size();) {
    const Utf8Char c = read_utf8(window.substr(i));
    const bool is_space = c.valid && is_python_space(c.code_point, classes);
    if (run == kMaxRunChars && is_space == run_is_space) {
      use(window.substr(start, i - start));
      start = i;
      run = 0;
    }
    run = is_space == run_is_space ? run + 1 : 1;
    run_is_space = is_space;
    i += static_cast<size_t>(c.length);
  }
  use(window.substr(start));
}

/// True when no run can be too long, found without reading every character: each block has both kinds of characters,
/// so a run is shorter than two blocks.
bool has_short_runs(std::string_view window) {
  constexpr size_t kBlock = kMaxRunChars / 2;
  for (size_t begin = 0; begin + kBlock <= window.size(); begin += kBlock) {
    const std::string_view block = window.substr(begin, kBlock);
    const bool visible = std::any_of(block.begin(), block.end(), [](char c) { return c > ' '; });  // in ASCII
    if (!visible || block.find_first_of(" \n") == std::string_view::npos) return false;
  }
  return true;
}

/// Bytes of the window at the front of the text.
size_t window_bytes(std::string_view text, bool valid) {
  if (text.size() <= static_cast<size_t>(kWindowChars)) return text.size();
  size_t i = 0;
  for (int64_t chars = 0; chars < kWindowChars && i < text.size(); ++chars)
    i += valid ? valid_utf8_length(text[i]) : static_cast<size_t>(read_utf8(text.substr(i)).length);
  return i;
}

/// Calls `use` with each stretch of the text between Meta's cuts.
template <typename Use>
void for_each_cut(std::string_view text, bool valid, const Use& use) {
  do {
    const std::string_view window = text.substr(0, window_bytes(text, valid));
    text.remove_prefix(window.size());
    if (window.size() <= static_cast<size_t>(kMaxRunChars) || (valid && has_short_runs(window))) {
      use(window);
    } else {
      for_each_run_cut(window, use);
    }
  } while (!text.empty());
}

bool is_blank(std::string_view bytes) { return bytes.find_first_not_of(" \n\t") == std::string_view::npos; }

/// Where in this text a piece was merged before, and where its tokens lie in the output. Direct-mapped, bounded.
class MergedPieces {
 public:
  struct Entry {
    uint64_t key = 0;
    std::string_view piece;
    size_t first_token = 0, num_tokens = 0;
  };

  /// Texts too short to repeat themselves get a small table.
  explicit MergedPieces(size_t text_bytes)
      : entries_(std::clamp<size_t>(std::bit_ceil(text_bytes / 32 + 1), 16, 16384)),
        shift_(64 - std::countr_zero(entries_.size())) {}

  Entry& at(uint64_t key) { return entries_[slot_of(key, shift_)]; }
  static bool holds(const Entry& entry, std::string_view piece, uint64_t key) {
    return entry.key == key && (is_exact(key) || entry.piece == piece);
  }

 private:
  std::vector<Entry> entries_;
  int shift_;
};

class Encoder {
 public:
  Encoder(const BytePairModel& model, size_t text_bytes) : model_(model), merged_(text_bytes) {
    out_.reserve(text_bytes / 4 + 8);
  }

  void encode_ordinary(std::string_view text);
  void encode_parsing_specials(std::string_view text);
  std::vector<TokenId> take() { return std::move(out_); }

 private:
  void encode_piece(std::string_view piece, uint64_t key);
  void encode_valid(std::string_view text);

  const BytePairModel& model_;
  MergedPieces merged_;
  bool remember_ = true;   // false while tokens may be taken back from the output
  size_t last_piece_ = 0;  // index in the output of the last piece's first token
  std::vector<TokenId> out_;
};

void Encoder::encode_piece(std::string_view piece, uint64_t key) {
  if (model_.whole_pieces_first) {
    if (const TokenId id = model_.vocabulary.find(piece, key); id != kNoToken) {
      out_.push_back(id);
      return;
    }
  }
  if (!remember_) return merge_piece(piece, model_.vocabulary, model_.merges, out_);
  auto& entry = merged_.at(key);
  const size_t first = out_.size();
  if (MergedPieces::holds(entry, piece, key)) {
    out_.resize(first + entry.num_tokens);
    std::copy_n(out_.begin() + static_cast<std::ptrdiff_t>(entry.first_token), entry.num_tokens,
                out_.begin() + static_cast<std::ptrdiff_t>(first));
  } else {
    merge_piece(piece, model_.vocabulary, model_.merges, out_);
  }
  entry = {key, piece, first, out_.size() - first};  // the latest place, which is still in the CPU's cache
}

/// Pieces are found a batch ahead, so that the memory their look-ups need is on its way.
void Encoder::encode_valid(std::string_view text) {
  constexpr size_t kBatch = 16;
  std::pair<std::string_view, uint64_t> batch[kBatch];
  while (!text.empty()) {
    size_t n = 0;
    for (; n < kBatch && !text.empty(); ++n) {
      const std::string_view piece = text.substr(0, next_piece(text));
      batch[n] = {piece, key_of(piece)};
      model_.vocabulary.prefetch(batch[n].second);
      text.remove_prefix(piece.size());
    }
    for (size_t i = 0; i < n; ++i) {
      last_piece_ = out_.size();
      encode_piece(batch[i].first, batch[i].second);
    }
  }
}

/// Text that is not valid UTF-8 goes as in the tiktoken library's _encode_bytes: what follows the last whole piece
/// before the first invalid byte (and the blank tokens before it) is one piece.
void Encoder::encode_ordinary(std::string_view text) {
  const size_t valid = valid_utf8_prefix(text);
  const size_t begin = out_.size();
  last_piece_ = begin;
  remember_ = valid == text.size();
  encode_valid(text.substr(0, valid));
  if (valid == text.size()) return;
  const auto bytes_of = [&](size_t i) { return model_.vocabulary.bytes(out_[i]); };
  size_t last = last_piece_;
  if (last < out_.size() && is_blank(bytes_of(last))) {
    while (last > begin && is_blank(bytes_of(last - 1))) --last;
  }
  size_t tail = text.size() - valid;
  for (size_t i = last; i < out_.size(); ++i) tail += bytes_of(i).size();
  out_.resize(last);
  const std::string_view rest = text.substr(text.size() - tail);
  encode_piece(rest, key_of(rest));
}

void Encoder::encode_parsing_specials(std::string_view text) {
  size_t start = 0;
  for (size_t i = 0; i < text.size();) {
    const TokenId id = model_.vocabulary.special_at(text.substr(i));
    if (id == kNoToken) {
      ++i;
      continue;
    }
    encode_ordinary(text.substr(start, i - start));
    out_.push_back(id);
    i += model_.vocabulary.bytes(id).size();
    start = i;
  }
  encode_ordinary(text.substr(start));
}

}  // namespace

std::vector<TokenId> encode_text(const BytePairModel& model, std::string_view text, Specials specials) {
  Encoder encoder(model, text.size());
  const bool valid = valid_utf8_prefix(text) == text.size();
  for_each_cut(text, valid, [&](std::string_view stretch) {
    if (specials == Specials::kParse) {
      encoder.encode_parsing_specials(stretch);
    } else {
      encoder.encode_ordinary(stretch);
    }
  });
  return encoder.take();
}

}  // namespace puna::text
