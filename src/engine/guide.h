// Where one text stands in its grammar, if there is one.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/error.h"
#include "engine/loaded_model.h"
#include "grammar/grammar.h"

namespace puna::engine {

/// What grammars for this model are compiled with: its tokens, and its stop tokens as those that end a text.
std::shared_ptr<const grammar::Vocabulary> grammar_vocabulary(const LoadedModel& loaded);

class Guide {
 public:
  /// null: any text.
  explicit Guide(const std::shared_ptr<const grammar::CompiledGrammar>& grammar) {
    if (!grammar) return;
    state_ = grammar->start();
    mask_.resize(grammar->vocabulary().mask_words());
    has_end_tokens_ = !grammar->vocabulary().end_tokens().empty();
  }

  /// The tokens allowed next, as a mask; empty without a grammar.
  std::span<const uint64_t> mask() {
    if (state_) state_->mask(mask_);
    return mask_;
  }
  void accept(TokenId id) {
    if (state_ && !state_->accept(id)) PUNA_CHECK(false, "the grammar refuses token {} of its own mask", id);
  }
  /// Nothing can follow, and no token says so.
  bool must_end() const { return state_ && !has_end_tokens_ && state_->must_end(); }

 private:
  std::optional<grammar::GrammarState> state_;
  std::vector<uint64_t> mask_;
  bool has_end_tokens_ = false;
};

}  // namespace puna::engine
