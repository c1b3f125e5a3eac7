#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <queue>
#include <tuple>

#include "base/error.h"

namespace puna::text {
namespace {

/// Up to this many bytes a linear search for the next merge is faster than a heap.
constexpr size_t kShortPiece = 96;

void merge_short(std::string_view piece, const Vocabulary& vocabulary, const MergeTable& merges,
                 std::vector<TokenId>& out) {
  TokenId ids[kShortPiece];
  MergeTable::Result joins[kShortPiece];  // joins[i]: of ids[i] and ids[i + 1]
  size_t n = piece.size();
  for (size_t i = 0; i < n; ++i) ids[i] = vocabulary.byte_token(static_cast<uint8_t>(piece[i]));
  for (size_t i = 0; i + 1 < n; ++i) joins[i] = merges.find(ids[i], ids[i + 1]);
  while (n > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < n; ++i) best = joins[i].priority < joins[best].priority ? i : best;
    if (joins[best].priority == UINT32_MAX) break;
    ids[best] = joins[best].merged;
    --n;
    std::copy(ids + best + 2, ids + n + 1, ids + best + 1);
    if (best + 1 < n) {
      std::copy(joins + best + 2, joins + n, joins + best + 1);
      joins[best] = merges.find(ids[best], ids[best + 1]);
    }
    if (best > 0) joins[best - 1] = merges.find(ids[best - 1], ids[best]);
  }
  out.insert(out.end(), ids, ids + n);
}

class LongPiece {
 public:
  LongPiece(std::string_view piece, const Vocabulary& vocabulary, const MergeTable& merges) : merges_(merges) {
    const auto n = static_cast<int32_t>(piece.size());
    nodes_.reserve(piece.size());
    for (int32_t i = 0; i < n; ++i)
      nodes_.push_back(
          {vocabulary.byte_token(static_cast<uint8_t>(piece[static_cast<size_t>(i)])), i - 1, i + 1 < n ? i + 1 : -1});
    for (int32_t i = 0; i + 1 < n; ++i) consider(i);
  }

  void merge_all() {
    while (!candidates_.empty()) {
      const Candidate best = candidates_.top();
      candidates_.pop();
      Node& node = at(best.left);
      if (node.id != best.left_id || node.next < 0 || at(node.next).id != best.right_id) continue;  // merged since
      node.id = merges_.find(best.left_id, best.right_id).merged;
      Node& gone = at(node.next);
      gone.id = kNoToken;
      node.next = gone.next;
      if (node.next >= 0) at(node.next).previous = best.left;
      if (node.previous >= 0) consider(node.previous);
      consider(best.left);
    }
  }

  void append_to(std::vector<TokenId>& out) const {
    for (int32_t i = 0; i >= 0; i = nodes_[static_cast<size_t>(i)].next)
      out.push_back(nodes_[static_cast<size_t>(i)].id);
  }

 private:
  struct Node {
    TokenId id;
    int32_t previous, next;  // -1: none
  };
  struct Candidate {
    uint32_t priority;
    int32_t left;
    TokenId left_id, right_id;
    bool operator<(const Candidate& other) const {  // std::priority_queue yields the greatest
      return priority != other.priority ? priority > other.priority : left > other.left;
    }
  };

  Node& at(int32_t i) { return nodes_[static_cast<size_t>(i)]; }

  void consider(int32_t left) {
    const Node& node = at(left);
    if (node.next < 0) return;
    const TokenId right_id = at(node.next).id;
    const auto result = merges_.find(node.id, right_id);
    if (result.priority != UINT32_MAX) candidates_.push({result.priority, left, node.id, right_id});
  }

  const MergeTable& merges_;
  std::vector<Node> nodes_;
  std::priority_queue<Candidate> candidates_;
};

}  // namespace

std::vector<Merge> merges_from_ranks(const Vocabulary& vocabulary) {
  std::vector<Merge> merges;
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    const auto id = static_cast<TokenId>(i);
    if (vocabulary.is_special(id)) continue;
    const std::string_view token = vocabulary.bytes(id);
    for (size_t cut = 1; cut < token.size(); ++cut) {
      const TokenId left = vocabulary.find(token.substr(0, cut));
      if (left == kNoToken) continue;
      const TokenId right = vocabulary.find(token.substr(cut));
      if (right != kNoToken) merges.push_back({left, right, id, static_cast<uint32_t>(i)});
    }
  }
  return merges;
}

MergeTable::MergeTable(const std::vector<Merge>& merges, std::string_view where) {
  const size_t capacity = std::bit_ceil(merges.size() * 2 + 2);
  slots_.resize(capacity);
  shift_ = 64 - std::countr_zero(capacity);
  for (const Merge& merge : merges) insert(merge, where);
}

void MergeTable::insert(const Merge& merge, std::string_view where) {
  const uint64_t pair = pair_of(merge.left, merge.right);
  size_t i = slot_of(pair);
  for (size_t probes = 0; slots_[i].pair != UINT64_MAX; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i].pair == pair) fail(where, "the merge of tokens {} and {} is listed twice", merge.left, merge.right);
    if (++probes > kMaxProbes) fail(where, "the merges are made to collide; this is not an honest vocabulary");
  }
  slots_[i] = {pair, {merge.priority, merge.merged}};
}

MergeTable::Result MergeTable::find(TokenId left, TokenId right) const {
  const uint64_t pair = pair_of(left, right);
  for (size_t i = slot_of(pair);; i = (i + 1) & (slots_.size() - 1)) {
    if (slots_[i].pair == pair) return slots_[i].result;
    if (slots_[i].pair == UINT64_MAX) return {};
  }
}

std::vector<Merge> MergeTable::list() const {
  std::vector<Merge> merges;
  for (const auto& [pair, result] : slots_)
    if (pair != UINT64_MAX)
      merges.push_back(
          {static_cast<TokenId>(pair >> 32), static_cast<TokenId>(pair & UINT32_MAX), result.merged, result.priority});
  std::ranges::sort(merges, {}, [](const Merge& m) { return std::tuple(m.priority, m.left, m.right); });
  return merges;
}

void merge_piece(std::string_view piece, const Vocabulary& vocabulary, const MergeTable& merges,
                 std::vector<TokenId>& out) {
  if (piece.size() <= kShortPiece) return merge_short(piece, vocabulary, merges, out);
  LongPiece merging(piece, vocabulary, merges);
  merging.merge_all();
  merging.append_to(out);
}

}  // namespace puna::text
