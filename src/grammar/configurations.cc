#include "grammar/configurations.h"

#include <algorithm>
#include <map>

#include "base/error.h"

namespace puna::grammar {
namespace {

constexpr size_t kMaxBytes = size_t{256} << 20;
constexpr size_t kMaxItems = 4096;
// What steps cost beside the items that they look at, in such items.
constexpr int64_t kStepWork = 16, kCallWork = 16, kItemsMovedAsOne = 64;

using Item = Configurations::Item;

uint64_t hash_items(std::span<const Item> items, uint64_t hash) {
  for (const Item& item : items) {
    hash = (hash ^ item.state) * 0x9E3779B97F4A7C15u;
    hash = (hash ^ (hash >> 32) ^ item.frame) * 0xD6E8FEB86659FD93u;
    hash ^= hash >> 32;
  }
  return hash;
}

void normalise(std::vector<Item>& items) {
  std::sort(items.begin(), items.end());
  items.erase(std::unique(items.begin(), items.end()), items.end());
  if (items.size() > kMaxItems)
    fail("grammar", "the text can be read in more than {} ways at once; make the grammar less ambiguous", kMaxItems);
}

}  // namespace

Configurations::Configurations(std::shared_ptr<const Automaton> automaton)
    : automaton_(std::move(automaton)), num_classes_(automaton_->num_classes()) {}

size_t Configurations::bytes() const {
  return next_.size() * sizeof(int32_t) + (items_.size() + callers_.size()) * sizeof(Item) +
         (item_begin_.size() + frame_begin_.size()) * 64;  // with their entries of the hash tables
}

Configurations::Id Configurations::start() {
  std::vector<Item> items = {{automaton_->root, kEnd}};
  return close(items);
}

Configurations::Id Configurations::alone(StateId state) { return intern({{state, kUnknown}}, 0); }

Configurations::Id Configurations::after(uint32_t frame) {
  if (after_[frame] != kNotComputed) return after_[frame];
  const auto list = callers(frame);
  std::vector<Item> items(list.begin(), list.end());
  const Id id = close(items);
  return after_[frame] = id;
}

void Configurations::fail_over_limit() const {
  fail("grammar", "the text can be read in too many ways at once to go on in time; make the grammar less ambiguous");
}

Configurations::Id Configurations::compute_next(Id id, uint8_t cls) {
  if (bytes() > kMaxBytes)
    fail("grammar", "the text nests too deeply or too ambiguously for this grammar ({} MB of open rules)",
         bytes() >> 20);
  spend(kStepWork + std::ssize(items(id)));
  std::vector<Item> reached;
  for (const Item& item : items(id))
    if (const int32_t to = automaton_->step(item.state, cls); to != kDead)
      reached.push_back({static_cast<StateId>(to), item.frame});
  const Id result = reached.empty() ? kDead : close(reached);
  return next_[static_cast<size_t>(id) * num_classes_ + cls] = result;
}

Configurations::Id Configurations::close(std::vector<Item>& items) {
  const uint8_t flags = add_returns(items);
  add_calls(items);
  // Only what a byte can follow is kept: calls and returns are in the set already.
  std::erase_if(items, [&](const Item& item) { return !automaton_->has_bytes[item.state]; });
  normalise(items);
  return intern(items, flags);
}

uint8_t Configurations::add_returns(std::vector<Item>& items) {
  uint8_t flags = 0;
  normalise(items);
  std::vector<Item> work = items;
  while (!work.empty()) {
    const Item item = work.back();
    work.pop_back();
    if (!automaton_->final[item.state]) continue;
    spend(1 + std::ssize(callers(item.frame)));
    if (item.frame == kEnd) flags |= kComplete;
    if (item.frame == kUnknown) flags |= kLeaves;
    for (const Item& caller : callers(item.frame)) {
      const auto at = std::lower_bound(items.begin(), items.end(), caller);
      if (at != items.end() && *at == caller) continue;
      spend((items.end() - at) / kItemsMovedAsOne);
      items.insert(at, caller);
      work.push_back(caller);
    }
    if (items.size() > kMaxItems) normalise(items);  // throws
  }
  return flags;
}

void Configurations::add_calls(std::vector<Item>& items) {
  std::map<uint32_t, std::pair<RuleId, std::vector<Item>>>
      pending;  // by rank: a rule's callers are all known at its turn
  const auto add = [&](const Item& item) {
    for (const auto& call : automaton_->calls_of(item.state)) {
      spend(kCallWork);
      auto& [rule, list] = pending[automaton_->rule_rank[call.rule]];
      rule = call.rule;
      if (item.frame > kEnd && automaton_->only_final(call.then)) {
        const auto outer = callers(item.frame);  // a last call returns to where its caller would
        spend(std::ssize(outer));
        list.insert(list.end(), outer.begin(), outer.end());
      } else {
        list.push_back({call.then, item.frame});
      }
    }
  };
  for (size_t i = 0; i < items.size(); ++i) add(items[i]);
  while (!pending.empty()) {
    auto [rule, list] = std::move(pending.begin()->second);
    pending.erase(pending.begin());
    const Item called = {automaton_->rule_start[rule], intern_frame(list)};
    items.push_back(called);
    add(called);
  }
}

uint32_t Configurations::intern_frame(std::vector<Item>& list) {
  normalise(list);
  const uint64_t hash = hash_items(list, 1);
  for (auto [it, end] = by_callers_.equal_range(hash); it != end; ++it)
    if (std::ranges::equal(callers(it->second), list)) return it->second;
  const auto frame = static_cast<uint32_t>(after_.size());
  callers_.insert(callers_.end(), list.begin(), list.end());
  frame_begin_.push_back(callers_.size());
  after_.push_back(kNotComputed);
  by_callers_.emplace(hash, frame);
  return frame;
}

Configurations::Id Configurations::intern(const std::vector<Item>& items, uint8_t flags) {
  const uint64_t hash = hash_items(items, flags + 2u);
  for (auto [it, end] = by_items_.equal_range(hash); it != end; ++it)
    if (flags_[static_cast<size_t>(it->second)] == flags && std::ranges::equal(this->items(it->second), items))
      return it->second;
  const auto id = static_cast<Id>(flags_.size());
  items_.insert(items_.end(), items.begin(), items.end());
  item_begin_.push_back(items_.size());
  flags_.push_back(flags);
  next_.resize(next_.size() + num_classes_, kNotComputed);
  by_items_.emplace(hash, id);
  return id;
}

}  // namespace puna::grammar
