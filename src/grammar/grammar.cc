#include "grammar/grammar.h"

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>

#include "base/error.h"
#include "grammar/token_masks.h"

namespace puna::grammar {
namespace {

constexpr size_t kMaxMasks = 512;                      // of whole configurations, per session
constexpr size_t kMaxSessionBytes = size_t{32} << 20;  // new texts begin a new session beyond it

using Id = Configurations::Id;
using Mask = std::vector<uint64_t>;
constexpr int64_t kItemWork = 8;  // to find the tokens of an item that are known

}  // namespace

/// Configurations that texts share, and their masks. Texts hold on to theirs while a new one is begun.
struct CompiledGrammar::Session {
  Session(std::shared_ptr<const Automaton> automaton, std::shared_ptr<const Vocabulary> vocabulary,
          std::shared_ptr<TokenMasks> tokens)
      : configurations(std::move(automaton)),
        vocabulary(std::move(vocabulary)),
        tokens(std::move(tokens)),
        path(this->vocabulary->max_depth() + 1) {}

  /// Takes what it did from `work`, as all that may take long here.
  const Mask& mask(Id id, int64_t& work) {
    if (const auto known = masks.find(id); known != masks.end()) return known->second;
    if (order.size() >= kMaxMasks) {
      masks.erase(order.front());
      order.pop_front();
    }
    Mask made = make_mask(id, work);
    order.push_back(id);
    return masks.emplace(id, std::move(made)).first->second;
  }

  bool can_go_on(Id id) const { return !configurations.items(id).empty(); }

  template <typename Do>
  void within(int64_t& work, const Do& what) {
    const int64_t before = configurations.work();
    configurations.allow(work);
    what();
    work -= configurations.work() - before;
  }

  size_t bytes() const { return configurations.bytes() + masks.size() * vocabulary->mask_words() * sizeof(uint64_t); }

  std::mutex mutex;
  Configurations configurations;

 private:
  Mask make_mask(Id id, int64_t& work) {
    Mask bits(vocabulary->mask_words(), 0);
    const auto found = configurations.items(id);
    const std::vector<Configurations::Item> items(found.begin(), found.end());  // walks add configurations
    std::map<uint32_t, std::vector<std::shared_ptr<const StateTokens>>> exits;  // by frame
    for (const auto& item : items) {
      const auto of_state = tokens->of(item.state, work);
      work -= kItemWork + std::ssize(of_state->bits) / 8;
      if (work < 0) configurations.fail_over_limit();
      for (size_t w = 0; w < of_state->bits.size(); ++w) bits[w] |= of_state->bits[w];
      for (const TokenId token : of_state->ids) set(bits, token);
      if (!of_state->exits.empty() && item.frame > Configurations::kEnd) exits[item.frame].push_back(of_state);
    }
    within(work, [&] { walk_exits(exits, bits); });
    if (configurations.complete(id))
      for (const TokenId token : vocabulary->end_tokens()) set(bits, token);
    return bits;
  }

  void walk_exits(const std::map<uint32_t, std::vector<std::shared_ptr<const StateTokens>>>& exits, Mask& bits) {
    for (const auto& [frame, list] : exits) {
      const Id after = configurations.after(frame);
      if (!can_go_on(after)) continue;
      for (const auto& of_state : list)
        for (const uint32_t node : of_state->exits)
          walk(*vocabulary, configurations, after, node, path, [&](uint32_t at, Id) {
            const auto nodes = vocabulary->nodes();
            for (uint32_t t = nodes[at].first_token; t < nodes[at + 1].first_token; ++t)
              set(bits, vocabulary->tokens()[t]);
          });
    }
  }

  static void set(Mask& bits, TokenId token) { bits[static_cast<size_t>(token) / 64] |= uint64_t{1} << (token % 64); }

  std::shared_ptr<const Vocabulary> vocabulary;
  std::shared_ptr<TokenMasks> tokens;
  std::vector<Id> path;
  std::unordered_map<Id, Mask> masks;
  std::deque<Id> order;
};

struct CompiledGrammar::Shared {
  std::shared_ptr<const Automaton> automaton;
  std::shared_ptr<TokenMasks> tokens;
  std::mutex mutex;
  std::shared_ptr<Session> session;  // of new texts
};

CompiledGrammar::CompiledGrammar(Source source, std::shared_ptr<const Vocabulary> vocabulary)
    : vocabulary_(std::move(vocabulary)), shared_(std::make_unique<Shared>()) {
  shared_->automaton = std::make_shared<const Automaton>(build_automaton(std::move(source)));
  shared_->tokens = std::make_shared<TokenMasks>(shared_->automaton, vocabulary_);
}

CompiledGrammar::~CompiledGrammar() = default;

std::shared_ptr<const CompiledGrammar> CompiledGrammar::compile(Source source,
                                                                std::shared_ptr<const Vocabulary> vocabulary,
                                                                std::chrono::microseconds ahead) {
  std::shared_ptr<CompiledGrammar> grammar(new CompiledGrammar(std::move(source), std::move(vocabulary)));
  grammar->shared_->tokens->precompute(ahead, GrammarState::kTextWork);
  return grammar;
}

size_t CompiledGrammar::num_states() const { return shared_->automaton->num_states(); }

size_t CompiledGrammar::bytes() const {
  const Automaton& automaton = *shared_->automaton;
  const size_t of_automaton = automaton.next.size() * sizeof(automaton.next[0]) +
                              automaton.calls.size() * sizeof(automaton.calls[0]) + automaton.num_states() * 8;
  std::shared_ptr<Session> session;
  {
    const std::lock_guard lock(shared_->mutex);
    session = shared_->session;
  }
  size_t of_session = 0;
  if (session) {
    const std::lock_guard lock(session->mutex);
    of_session = session->bytes();
  }
  return of_automaton + shared_->tokens->bytes() + of_session;
}

GrammarState CompiledGrammar::start() const {
  std::shared_ptr<Session> session;
  {
    const std::lock_guard lock(shared_->mutex);
    session = shared_->session;
    if (!session || (std::lock_guard(session->mutex), session->configurations.bytes() > kMaxSessionBytes))
      session = shared_->session = std::make_shared<Session>(shared_->automaton, vocabulary_, shared_->tokens);
  }
  const std::lock_guard lock(session->mutex);
  GrammarState state(shared_from_this(), session, kDead);
  session->within(state.work_, [&] { state.configuration_ = session->configurations.start(); });
  return state;
}

bool GrammarState::accept(TokenId token) {
  if (finished_) return false;
  if (grammar_->vocabulary().is_end(token)) return finished_ = is_complete();
  const std::string_view bytes = grammar_->vocabulary().bytes(token);
  return !bytes.empty() && accept_bytes(bytes);
}

bool GrammarState::accept_bytes(std::string_view bytes) {
  if (finished_) return false;
  const std::lock_guard lock(session_->mutex);
  Configurations& configurations = session_->configurations;
  Id id = configuration_;
  session_->within(work_, [&] {
    for (size_t i = 0; i < bytes.size() && id != kDead; ++i)
      id = configurations.next(id, configurations.automaton().byte_class[static_cast<uint8_t>(bytes[i])]);
  });
  if (id == kDead) return false;
  configuration_ = id;
  work_ = std::min(kTextWork, work_ + kTokenWork);
  return true;
}

void GrammarState::mask(std::span<uint64_t> words) const {
  PUNA_CHECK(words.size() == grammar_->vocabulary().mask_words(), "{} words, {} needed", words.size(),
             grammar_->vocabulary().mask_words());
  if (finished_) {
    std::fill(words.begin(), words.end(), 0);
    return;
  }
  const std::lock_guard lock(session_->mutex);
  const Mask& mask = session_->mask(configuration_, work_);
  std::copy(mask.begin(), mask.end(), words.begin());
}

bool GrammarState::is_complete() const {
  const std::lock_guard lock(session_->mutex);
  return finished_ || session_->configurations.complete(configuration_);
}

bool GrammarState::must_end() const {
  const std::lock_guard lock(session_->mutex);
  return finished_ || !session_->can_go_on(configuration_);
}

std::string GrammarState::forced_bytes(size_t limit) const {
  std::string bytes;
  const std::lock_guard lock(session_->mutex);
  Configurations& configurations = session_->configurations;
  const Automaton& automaton = configurations.automaton();
  Id id = configuration_;
  configurations.allow(kTextWork);
  while (!finished_ && bytes.size() < limit && !configurations.complete(id)) {
    Id only = kDead;
    uint8_t byte = 0;
    size_t choices = 0;
    for (size_t cls = 0; cls < automaton.num_classes() && choices < 2; ++cls) {
      const Id to = configurations.next(id, static_cast<uint8_t>(cls));
      if (to == kDead) continue;
      choices += automaton.class_bytes[cls];
      only = to, byte = automaton.class_first[cls];
    }
    if (choices != 1) break;
    bytes += static_cast<char>(byte);
    id = only;
  }
  return bytes;
}

}  // namespace puna::grammar
