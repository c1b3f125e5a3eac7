// A grammar ready for use with one vocabulary, and where a text stands in it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "grammar/source.h"
#include "grammar/vocabulary.h"

namespace puna::grammar {

class GrammarState;

/// Immutable to its users and safe to share between threads: what it learns on the way is behind locks.
class CompiledGrammar : public std::enable_shared_from_this<CompiledGrammar> {
 public:
  /// `ahead` is the time spent on masks before the first token; the others are made when first wanted. Throws Error for
  /// a grammar that no text matches, with left recursion, or too large.
  static std::shared_ptr<const CompiledGrammar> compile(Source source, std::shared_ptr<const Vocabulary> vocabulary,
                                                        std::chrono::microseconds ahead = std::chrono::seconds(1));
  ~CompiledGrammar();

  GrammarState start() const;
  const Vocabulary& vocabulary() const { return *vocabulary_; }
  size_t num_states() const;
  /// Of memory, now: the automaton, and what was learned by the texts that begin.
  size_t bytes() const;

 private:
  friend class GrammarState;
  struct Shared;
  struct Session;
  CompiledGrammar(Source source, std::shared_ptr<const Vocabulary> vocabulary);

  std::shared_ptr<const Vocabulary> vocabulary_;
  std::unique_ptr<Shared> shared_;
};

/// How far a text has come. A copy is cheap and independent: to fork, to try draft tokens, to go back. Throws Error
/// when a text is so deeply nested or so ambiguous that memory or time for it run out: a text may cost kTextWork at
/// once, and kTokenWork more for each token.
class GrammarState {
 public:
  /// Goes on by one token; false, and nothing changes, when the grammar does not allow it.
  bool accept(TokenId token);
  bool accept_bytes(std::string_view bytes);

  /// Sets the bits of the allowed tokens and clears all others; vocabulary().mask_words() words. End tokens are allowed
  /// where the text is complete.
  void mask(std::span<uint64_t> words) const;
  /// The text so far is one of the grammar's texts.
  bool is_complete() const;
  /// An end token was accepted: nothing is allowed any more.
  bool is_finished() const { return finished_; }
  /// Complete, and nothing can follow.
  bool must_end() const;
  /// The bytes that come next whatever is chosen, at most `limit` of them.
  std::string forced_bytes(size_t limit = 4096) const;

  static constexpr int64_t kTextWork = 10'000'000, kTokenWork = 1'000'000;  // as Configurations counts

 private:
  friend class CompiledGrammar;
  GrammarState(std::shared_ptr<const CompiledGrammar> grammar, std::shared_ptr<CompiledGrammar::Session> session,
               int32_t configuration)
      : grammar_(std::move(grammar)), session_(std::move(session)), configuration_(configuration) {}

  std::shared_ptr<const CompiledGrammar> grammar_;
  std::shared_ptr<CompiledGrammar::Session> session_;
  int32_t configuration_;
  mutable int64_t work_ = kTextWork;  // that is left
  bool finished_ = false;
};

}  // namespace puna::grammar
