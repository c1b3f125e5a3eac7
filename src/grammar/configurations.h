// What may be open after some bytes of a text: sets of (state, frame), each kept once and found again.
#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "grammar/automaton.h"

namespace puna::grammar {

/// A configuration is a set of items (state of a rule, frame to which that rule returns); a frame is the set of items
/// with which the callers go on. Equal sets have equal ids, so that steps are remembered and a text that nests the
/// same way again meets what is known already. No text is ambiguous enough to multiply them: a step makes at most one
/// frame per rule. Not safe to share between threads.
class Configurations {
 public:
  using Id = int32_t;  // or kDead
  struct Item {
    StateId state;
    uint32_t frame;
    bool operator==(const Item&) const = default;
    auto operator<=>(const Item&) const = default;
  };
  /// Frames that are not sets: the caller is unknown, and the end of the whole text.
  static constexpr uint32_t kUnknown = 0, kEnd = 1;

  explicit Configurations(std::shared_ptr<const Automaton> automaton);

  Id start();
  /// The rule of `state` alone, with an unknown caller; its first byte is taken from the state, not from a call there.
  Id alone(StateId state);
  /// What follows the completion of a rule with this frame.
  Id after(uint32_t frame);

  /// Throws Error when the sets have outgrown their limit.
  Id next(Id id, uint8_t cls) {
    const int32_t known = next_[static_cast<size_t>(id) * num_classes_ + cls];
    return known >= kDead ? known : compute_next(id, cls);
  }
  /// The whole text may end here.
  bool complete(Id id) const { return flags_[static_cast<size_t>(id)] & kComplete; }
  /// The rule that an alone() configuration began in may be complete here.
  bool leaves(Id id) const { return flags_[static_cast<size_t>(id)] & kLeaves; }
  std::span<const Item> items(Id id) const {
    return {items_.data() + item_begin_[static_cast<size_t>(id)],
            items_.data() + item_begin_[static_cast<size_t>(id) + 1]};
  }
  const Automaton& automaton() const { return *automaton_; }
  size_t bytes() const;

  /// What was done so far, in items looked at; so that a caller can bound its time.
  int64_t work() const { return work_; }
  /// Throws Error once so much more has been done; steps that are known already cost one item.
  void allow(int64_t items) { work_limit_ = work_ + items; }
  void spend(int64_t items) {
    work_ += items;
    if (work_ > work_limit_) fail_over_limit();
  }
  [[noreturn]] void fail_over_limit() const;

 private:
  static constexpr uint8_t kComplete = 1, kLeaves = 2;
  static constexpr int32_t kNotComputed = -2;

  Id compute_next(Id id, uint8_t cls);
  /// Adds what follows from the items: returns of complete rules, then calls.
  Id close(std::vector<Item>& items);
  uint8_t add_returns(std::vector<Item>& items);
  void add_calls(std::vector<Item>& items);
  uint32_t intern_frame(std::vector<Item>& callers);
  Id intern(const std::vector<Item>& items, uint8_t flags);
  std::span<const Item> callers(uint32_t frame) const {
    return {callers_.data() + frame_begin_[frame], callers_.data() + frame_begin_[frame + 1]};
  }

  std::shared_ptr<const Automaton> automaton_;
  size_t num_classes_;
  int64_t work_ = 0, work_limit_ = std::numeric_limits<int64_t>::max();
  std::vector<int32_t> next_;  // [configurations, classes]
  std::vector<uint8_t> flags_;
  std::vector<Item> items_;
  std::vector<size_t> item_begin_ = {0};
  std::vector<Item> callers_;
  std::vector<size_t> frame_begin_ = {0, 0, 0};
  std::vector<int32_t> after_ = {kNotComputed, kNotComputed};  // [frames]
  std::unordered_multimap<uint64_t, Id> by_items_;
  std::unordered_multimap<uint64_t, uint32_t> by_callers_;
};

}  // namespace puna::grammar
