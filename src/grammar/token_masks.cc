#include "grammar/token_masks.h"

#include <bit>

namespace puna::grammar {
namespace {

constexpr size_t kMaxKnownBytes = size_t{64} << 20;    // beyond it they are computed again each time
constexpr size_t kMaxScratchBytes = size_t{32} << 20;  // of configurations, before they are begun anew

}  // namespace

TokenMasks::TokenMasks(std::shared_ptr<const Automaton> automaton, std::shared_ptr<const Vocabulary> vocabulary)
    : automaton_(std::move(automaton)),
      vocabulary_(std::move(vocabulary)),
      configurations_(std::make_unique<Configurations>(automaton_)),
      known_(automaton_->num_states()),
      path_(vocabulary_->max_depth() + 1),
      bits_(vocabulary_->mask_words()) {}

std::shared_ptr<const StateTokens> TokenMasks::of(StateId state, int64_t& work) {
  const std::lock_guard lock(mutex_);
  if (known_[state]) return known_[state];
  if (configurations_->bytes() > kMaxScratchBytes) configurations_ = std::make_unique<Configurations>(automaton_);
  const int64_t before = configurations_->work();
  configurations_->allow(work);
  auto tokens = compute(state);
  work -= configurations_->work() - before;
  const size_t bytes = sizeof(StateTokens) + tokens->bits.size() * 8 + (tokens->ids.size() + tokens->exits.size()) * 4;
  if (known_bytes_ + bytes <= kMaxKnownBytes) {
    known_bytes_ += bytes;
    known_[state] = tokens;
  }
  return tokens;
}

void TokenMasks::precompute(std::chrono::microseconds time, int64_t work) {
  const auto end = std::chrono::steady_clock::now() + time;
  for (StateId state = 0; state < known_.size() && std::chrono::steady_clock::now() < end; ++state) {
    int64_t left = work;
    if (automaton_->has_bytes[state]) of(state, left);
  }
}

size_t TokenMasks::bytes() const {
  const std::lock_guard lock(mutex_);
  return known_bytes_ + configurations_->bytes() + known_.size() * sizeof(known_[0]);
}

std::shared_ptr<const StateTokens> TokenMasks::compute(StateId state) {
  auto result = std::make_shared<StateTokens>();
  std::fill(bits_.begin(), bits_.end(), 0);
  const auto nodes = vocabulary_->nodes();
  const TokenId* tokens = vocabulary_->tokens().data();
  walk(*vocabulary_, *configurations_, configurations_->alone(state), 0, path_, [&](uint32_t node, auto configuration) {
    for (uint32_t t = nodes[node].first_token; t < nodes[node + 1].first_token; ++t)
      bits_[static_cast<size_t>(tokens[t]) / 64] |= uint64_t{1} << (tokens[t] % 64);
    if (configurations_->leaves(configuration) && nodes[node].end > node + 1) result->exits.push_back(node);
  });
  size_t count = 0;
  for (const uint64_t word : bits_) count += static_cast<size_t>(std::popcount(word));
  if (count > bits_.size()) {
    result->bits = bits_;
  } else {
    for (size_t w = 0; w < bits_.size(); ++w)
      for (uint64_t word = bits_[w]; word != 0; word &= word - 1)
        result->ids.push_back(static_cast<TokenId>(w * 64 + static_cast<size_t>(std::countr_zero(word))));
  }
  return result;
}

}  // namespace puna::grammar
