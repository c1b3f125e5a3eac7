#include "text/piece_counts.h"

#include <bit>
#include <utility>

#include "base/error.h"
#include "text/split.h"
#include "text/utf8.h"
#include "text/vocabulary.h"

namespace puna::text {
namespace {

constexpr size_t kFirstSlots = 1 << 12;

}  // namespace

PieceCounts::PieceCounts() : slots_(kFirstSlots), shift_(64 - std::countr_zero(kFirstSlots)) {}

void PieceCounts::add_text(std::string_view text) {
  while (!text.empty()) {
    const size_t valid = valid_utf8_prefix(text);
    add_valid(text.substr(0, valid));
    text.remove_prefix(valid);
    if (text.empty()) return;
    add(text.substr(0, 1), key_of(text.substr(0, 1)), 1);
    text.remove_prefix(1);
  }
}

/// Pieces are found a batch ahead, so that the slots they need are on their way.
void PieceCounts::add_valid(std::string_view text) {
  constexpr size_t kBatch = 16;
  std::pair<std::string_view, uint64_t> batch[kBatch];
  while (!text.empty()) {
    size_t n = 0;
    for (; n < kBatch && !text.empty(); ++n) {
      const std::string_view piece = text.substr(0, next_piece(text));
      batch[n] = {piece, key_of(piece)};
      __builtin_prefetch(&slots_[slot_of(batch[n].second, shift_)]);
      text.remove_prefix(piece.size());
    }
    for (size_t i = 0; i < n; ++i) add(batch[i].first, batch[i].second, 1);
  }
}

void PieceCounts::add(std::string_view piece, uint64_t key, int64_t count) {
  size_t i = slot_of(key, shift_);
  for (; slots_[i].key != 0; i = (i + 1) & (slots_.size() - 1)) {
    Entry& entry = slots_[i];
    if (entry.key == key && (is_exact(key) || bytes_of(entry) == piece)) {
      entry.count += count;
      return;
    }
  }
  if (piece.size() > UINT32_MAX)
    fail("tokenizer train", "one piece of the text has {} bytes; is it text?", piece.size());
  slots_[i] = {key, bytes_.size(), count, static_cast<uint32_t>(piece.size())};
  bytes_ += piece;
  if (++num_distinct_ * 2 > static_cast<int64_t>(slots_.size())) grow();
}

void PieceCounts::grow() {
  std::vector<Entry> old(slots_.size() * 2);
  old.swap(slots_);
  --shift_;
  for (const Entry& entry : old) {
    if (entry.key == 0) continue;
    size_t i = slot_of(entry.key, shift_);
    while (slots_[i].key != 0) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = entry;
  }
}

void PieceCounts::add_all(const PieceCounts& other) {
  for (const Entry& entry : other.slots_)
    if (entry.key != 0) add(other.bytes_of(entry), entry.key, entry.count);
}

int64_t PieceCounts::num_pieces() const {
  int64_t total = 0;
  for (const Entry& entry : slots_) total += entry.count;
  return total;
}

int64_t PieceCounts::num_bytes() const {
  int64_t total = 0;
  for (const Entry& entry : slots_) total += entry.count * static_cast<int64_t>(entry.size);
  return total;
}

}  // namespace puna::text
