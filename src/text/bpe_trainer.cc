#include "text/bpe_trainer.h"

#include <algorithm>
#include <bit>
#include <queue>
#include <unordered_map>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/progress.h"
#include "text/byte_level.h"
#include "text/vocabulary.h"

namespace puna::text {
namespace {

constexpr uint32_t kNone = UINT32_MAX;
constexpr size_t kNumBytes = 256;

/// Two tokens -> the index of their pair.
class PairIndex {
 public:
  PairIndex() : slots_(1 << 17), shift_(64 - 17) {}

  uint32_t find(TokenId left, TokenId right) const { return slots_[slot(key_of_pair(left, right))].index; }

  /// The index of a pair; `index` itself when the pair is new.
  uint32_t find_or_add(TokenId left, TokenId right, uint32_t index) {
    const uint64_t key = key_of_pair(left, right);
    Slot& found = slots_[slot(key)];
    if (found.index != kNone) return found.index;
    found = {key, index};
    if (++size_ * 2 > slots_.size()) grow();
    return index;
  }

 private:
  struct Slot {
    uint64_t key = 0;
    uint32_t index = kNone;
  };

  static uint64_t key_of_pair(TokenId left, TokenId right) {
    return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  }

  size_t slot(uint64_t key) const {
    size_t i = slot_of(key, shift_);
    while (slots_[i].index != kNone && slots_[i].key != key) i = (i + 1) & (slots_.size() - 1);
    return i;
  }

  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    --shift_;
    for (const Slot& entry : old)
      if (entry.index != kNone) slots_[slot(entry.key)] = entry;
  }

  std::vector<Slot> slots_;
  int shift_;
  size_t size_ = 0;
};

class Trainer {
 public:
  Trainer(const PieceCounts& pieces, const BpeOptions& options) : options_(options) {
    for (uint8_t byte : bytes_in_byte_level_order()) add_token(std::string(1, static_cast<char>(byte)));
    read_words(pieces);
    count_byte_pairs();
  }

  BpeResult run() {
    Progress progress("Learning tokens", options_.num_tokens);
    Candidate best;
    while (std::ssize(tokens_) < options_.num_tokens && next_pair(best)) {
      stop_if_interrupted(options_.interrupt);
      join(best);
      progress.set(std::ssize(tokens_));
    }
    int64_t text_tokens = 0;
    for (const Word& word : words_) text_tokens += word.count * word.size;
    return {std::move(tokens_), text_tokens};
  }

 private:
  struct Word {  // a distinct piece
    uint64_t begin;
    uint32_t size;  // in tokens
    int64_t count;
  };
  struct Pair {
    TokenId left, right;
    int64_t count = 0;
    std::vector<uint32_t> words;  // that may hold it, ascending within each step
  };
  struct Candidate {
    int64_t count;
    TokenId left, right;
    uint32_t pair;
    bool operator<(const Candidate& other) const {  // std::priority_queue yields the greatest
      if (count != other.count) return count < other.count;
      return left != other.left ? left > other.left : right > other.right;
    }
  };
  /// What one step changes in the pairs on one side of the new token, by the neighbour.
  struct Side {
    std::vector<int64_t> lost;         // [token] occurrences of the neighbour with the old token
    std::vector<uint32_t> pairs;       // [token] pair of the neighbour with the new token
    std::vector<TokenId> lost_tokens;  // whose `lost` is not 0
    std::vector<TokenId> pair_tokens;  // whose `pairs` is not kNone
  };

  TokenId add_token(std::string bytes) {
    const auto id = static_cast<TokenId>(tokens_.size());
    lengths_.push_back(static_cast<int64_t>(bytes.size()));
    alone_.push_back(options_.single_digits && bytes.size() == 1 && bytes[0] >= '0' && bytes[0] <= '9');
    ids_.emplace(bytes, id);
    tokens_.push_back(std::move(bytes));
    for (Side* side : {&left_, &right_}) {
      side->lost.push_back(0);
      side->pairs.push_back(kNone);
    }
    return id;
  }

  bool may_join(TokenId left, TokenId right) const {
    const auto l = static_cast<size_t>(left), r = static_cast<size_t>(right);
    return lengths_[l] + lengths_[r] <= options_.max_token_bytes && !alone_[l] && !alone_[r];
  }

  void read_words(const PieceCounts& pieces) {
    TokenId token_of_byte[kNumBytes];
    for (size_t i = 0; i < kNumBytes; ++i) token_of_byte[static_cast<uint8_t>(tokens_[i][0])] = static_cast<TokenId>(i);
    words_.reserve(static_cast<size_t>(pieces.num_distinct()));
    pieces.for_each([&](std::string_view piece, int64_t count) {
      words_.push_back({symbols_.size(), static_cast<uint32_t>(piece.size()), count});
      for (char c : piece) symbols_.push_back(token_of_byte[static_cast<uint8_t>(c)]);
    });
    if (words_.size() >= kNone)
      fail("tokenizer train", "{} distinct pieces are too many; give less text", words_.size());
  }

  void count_byte_pairs() {
    std::vector<uint32_t> by_bytes(kNumBytes * kNumBytes, kNone);
    for (uint32_t w = 0; w < words_.size(); ++w) {
      stop_if_interrupted(options_.interrupt);
      const TokenId* symbols = &symbols_[words_[w].begin];
      for (uint32_t i = 0; i + 1 < words_[w].size; ++i) {
        if (!may_join(symbols[i], symbols[i + 1])) continue;
        uint32_t& pair = by_bytes[static_cast<size_t>(symbols[i]) * kNumBytes + static_cast<size_t>(symbols[i + 1])];
        if (pair == kNone) pair = pair_of(symbols[i], symbols[i + 1]);
        add_occurrence(pair, w);
      }
    }
    for (uint32_t pair = 0; pair < pairs_.size(); ++pair) propose(pair);
  }

  uint32_t pair_of(TokenId left, TokenId right) {
    const uint32_t pair = index_.find_or_add(left, right, static_cast<uint32_t>(pairs_.size()));
    if (pair == pairs_.size()) pairs_.push_back({left, right, 0, {}});
    return pair;
  }

  void add_occurrence(uint32_t index, uint32_t word) {
    Pair& pair = pairs_[index];
    pair.count += words_[word].count;
    if (pair.words.empty() || pair.words.back() != word) pair.words.push_back(word);
  }

  void propose(uint32_t pair) {
    const Pair& p = pairs_[pair];
    if (p.count >= options_.min_frequency) candidates_.push({p.count, p.left, p.right, pair});
  }

  /// Counts in the queue may have fallen since; such a candidate goes back with its count of now.
  bool next_pair(Candidate& best) {
    while (!candidates_.empty()) {
      best = candidates_.top();
      candidates_.pop();
      if (pairs_[best.pair].words.empty()) continue;  // joined since
      if (pairs_[best.pair].count == best.count) return true;
      propose(best.pair);
    }
    return false;
  }

  /// The count of the joined pair stays: a later step that makes more of its occurrences has them joined at once.
  void join(const Candidate& best) {
    std::string bytes = tokens_[static_cast<size_t>(best.left)] + tokens_[static_cast<size_t>(best.right)];
    const auto known = ids_.find(bytes);  // made of other halves before
    const TokenId merged = known != ids_.end() ? known->second : add_token(std::move(bytes));
    const std::vector<uint32_t> words = std::move(pairs_[best.pair].words);
    pairs_[best.pair].words.clear();
    for (size_t i = 0; i < words.size(); ++i) {
      if (i + 8 < words.size()) __builtin_prefetch(&words_[words[i + 8]]);
      if (i + 4 < words.size()) __builtin_prefetch(&symbols_[words_[words[i + 4]].begin]);
      join_in_word(words[i], best.left, best.right, merged);
    }
    settle(left_, [&](TokenId token) { return index_.find(token, best.left); });
    settle(right_, [&](TokenId token) { return index_.find(best.right, token); });
  }

  void join_in_word(uint32_t w, TokenId left, TokenId right, TokenId merged) {
    Word& word = words_[w];
    TokenId* symbols = &symbols_[word.begin];
    const uint32_t size = word.size;
    uint32_t out = 0;
    for (uint32_t i = 0; i < size;) {
      if (i + 1 == size || symbols[i] != left || symbols[i + 1] != right) {
        symbols[out++] = symbols[i++];
        continue;
      }
      if (out > 0) {
        const TokenId before = symbols[out - 1];
        lose(left_, before, word.count);
        if (may_join(before, merged)) gain(left_, before, w, before, merged);
      }
      symbols[out++] = merged;
      i += 2;
      if (i < size) {
        lose(right_, symbols[i], word.count);
        if (may_join(merged, symbols[i])) gain(right_, symbols[i], w, merged, symbols[i]);
      }
    }
    word.size = out;
  }

  static void lose(Side& side, TokenId token, int64_t count) {
    int64_t& lost = side.lost[static_cast<size_t>(token)];
    if (lost == 0) side.lost_tokens.push_back(token);
    lost += count;
  }

  void gain(Side& side, TokenId neighbour, uint32_t word, TokenId left, TokenId right) {
    uint32_t& pair = side.pairs[static_cast<size_t>(neighbour)];
    if (pair == kNone) {
      pair = pair_of(left, right);
      side.pair_tokens.push_back(neighbour);
    }
    add_occurrence(pair, word);
  }

  template <typename OldPair>
  void settle(Side& side, const OldPair& old_pair) {
    for (TokenId token : side.lost_tokens) {
      int64_t& lost = side.lost[static_cast<size_t>(token)];
      if (const uint32_t pair = old_pair(token); pair != kNone) pairs_[pair].count -= lost;
      lost = 0;
    }
    side.lost_tokens.clear();
    for (TokenId token : side.pair_tokens) {
      uint32_t& pair = side.pairs[static_cast<size_t>(token)];
      propose(pair);
      pair = kNone;
    }
    side.pair_tokens.clear();
  }

  const BpeOptions options_;
  std::vector<std::string> tokens_;
  std::vector<int64_t> lengths_;  // [token] bytes
  std::vector<uint8_t> alone_;    // [token] joins nothing
  std::unordered_map<std::string, TokenId> ids_;
  std::vector<Word> words_;
  std::vector<TokenId> symbols_;
  PairIndex index_;
  std::vector<Pair> pairs_;
  std::priority_queue<Candidate> candidates_;
  Side left_, right_;
};

}  // namespace

BpeResult train_bpe(const PieceCounts& pieces, const BpeOptions& options) {
  PUNA_CHECK(options.num_tokens >= static_cast<int64_t>(kNumBytes), "{} tokens", options.num_tokens);
  return Trainer(pieces, options).run();
}

}  // namespace puna::text
