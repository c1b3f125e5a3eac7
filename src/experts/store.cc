#include "experts/store.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "base/memory.h"
#include "experts/profile.h"

namespace puna::experts {

int64_t StoreLayout::largest_block() const {
  int64_t largest = 0;
  for (const auto& layer : blocks)
    for (const Block& block : layer) largest = std::max(largest, block.bytes);
  return largest;
}

Json StoreStatistics::json() const {
  return {{"uses", uses},
          {"hits", hits},
          {"hit_rate", hit_rate()},
          {"bytes_read", bytes_read},
          {"bytes_missed", bytes_missed},
          {"prefetches", prefetches},
          {"useful_prefetches", useful_prefetches},
          {"predicted", predicted},
          {"predicted_right", predicted_right},
          {"stall_seconds", stall_seconds}};
}

std::string StoreStatistics::text() const {
  return fmt::format(
      "experts from disk: {:.3f} of {} uses were in memory or on their way, {} read, {} of {} reads ahead were used, "
      "{} "
      "of {} predictions were right, {:.1f} s waited",
      hit_rate(), uses, format_bytes(bytes_read), useful_prefetches, prefetches, predicted_right, predicted,
      stall_seconds);
}

namespace {

int64_t slots_in(const StoreLayout& layout, int64_t budget) {
  const int64_t block = layout.largest_block();
  int64_t all = 0;
  for (const auto& layer : layout.blocks) all += std::ssize(layer);
  PUNA_CHECK(block > 0, "{} has no experts", layout.file.string());
  if (budget / block < 2)
    fail(layout.file.string(), "{} for experts hold less than two of {}; give {} at least", format_bytes(budget),
         format_bytes(block), format_bytes(2 * block));
  return std::min(budget / block, std::max<int64_t>(2, all));
}

/// What a use of `age` visits ago is worth.
double faded(double score, int64_t age) {
  return score * std::exp2(-static_cast<double>(age) / ExpertStore::kHalfLife);
}

}  // namespace

ExpertStore::ExpertStore(StoreLayout layout, int64_t budget_bytes)
    : layout_(std::move(layout)), reader_(layout_.file), visits_(layout_.blocks.size(), 0) {
  const int64_t count = slots_in(layout_, budget_bytes), block = layout_.largest_block();
  for (const auto& layer : layout_.blocks) {
    experts_.emplace_back(layer.size());
    for (const Block& b : layer)
      if (b.offset < 0 || b.bytes <= 0 || b.offset > reader_.file_bytes() - b.bytes)
        fail(layout_.file.string(), "ends at byte {}, where {} are needed; is it whole?", reader_.file_bytes(),
             b.offset + b.bytes);
  }
  memory_ = std::make_unique<io::AlignedBytes>(count * block);
  slots_.resize(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) slots_[static_cast<size_t>(i)].bytes = memory_->data() + i * block;
}

// Reads in flight go to memory_, so they end before it does.
ExpertStore::~ExpertStore() {
  for (Slot& slot : slots_) {
    if (slot.ticket == 0) continue;
    try {
      reader_.wait(slot.ticket);
    } catch (const Error&) {
      continue;  // nobody wants it any more
    }
  }
}

void ExpertStore::check(int layer, int index) const {
  PUNA_CHECK(layer >= 0 && layer < std::ssize(experts_), "layer {} of {}", layer, experts_.size());
  const int64_t count = std::ssize(experts_[static_cast<size_t>(layer)]);
  PUNA_CHECK(index >= 0 && index < count, "expert {} of {}", index, count);
}

double ExpertStore::worth(const Slot& slot) const {
  const Expert& held = experts_[static_cast<size_t>(slot.layer)][static_cast<size_t>(slot.index)];
  return faded(held.score, visits_[static_cast<size_t>(slot.layer)] - held.scored);
}

void ExpertStore::evict(Slot& slot) {
  if (slot.empty()) return;
  if (slot.ticket != 0) {
    reader_.hurry(slot.ticket);
    try {
      await(slot);
    } catch (const Error&) {
      return;  // nobody asked for it any more, and its slot is empty
    }
  }
  expert(slot.layer, slot.index).slot = -1;
  slot.layer = slot.index = -1;
  slot.guess = false;
}

/// The slot that is worth least; null when all are pinned, or, for a guess, worth more than it. What was read ahead and
/// not used goes last, as its use is expected.
ExpertStore::Slot* ExpertStore::free_slot(bool for_guess, double worth_of_new) {
  Slot* best = nullptr;
  double least = 0;
  for (Slot& slot : slots_) {
    if (slot.pinned) continue;
    if (slot.empty()) return &slot;
    if (for_guess && slot.guess) continue;
    constexpr double kExpected = 1e6;
    const double value = worth(slot) + (slot.guess ? kExpected : 0);
    if (best == nullptr || value < least) best = &slot, least = value;
  }
  // A guess is right less often than not where experts are many: it must be worth nearly as much as what goes.
  if (for_guess && best != nullptr && worth_of_new + 1 < least) return nullptr;
  if (best != nullptr) evict(*best);
  return best;
}

void ExpertStore::begin_read(int layer, int index, Slot& slot, bool guess) {
  const Block& block = layout_.blocks[static_cast<size_t>(layer)][static_cast<size_t>(index)];
  slot.ticket = reader_.submit(block.offset, block.bytes, slot.bytes, /*urgent=*/!guess);
  slot.layer = layer, slot.index = index, slot.guess = guess;
  expert(layer, index).slot = static_cast<int>(&slot - slots_.data());
}

/// Until the slot's read is done. One that failed leaves the slot empty.
void ExpertStore::await(Slot& slot) {
  const auto ticket = std::exchange(slot.ticket, 0);
  const auto start = std::chrono::steady_clock::now();
  try {
    reader_.wait(ticket);
  } catch (const Error&) {
    expert(slot.layer, slot.index).slot = -1;
    slot.layer = slot.index = -1;
    slot.pinned = slot.guess = false;
    throw;
  }
  statistics_.stall_seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void ExpertStore::count_prediction(int layer, std::span<const int> experts) {
  for (const int index : experts) statistics_.predicted_right += expert(layer, index).predicted ? 1 : 0;
  for (Expert& each : experts_[static_cast<size_t>(layer)]) each.predicted = false;
}

void ExpertStore::visit(int layer, std::span<const int> experts, const Use& use) {
  for (const int index : experts) check(layer, index);
  count_prediction(layer, experts);
  const int64_t now = ++visits_[static_cast<size_t>(layer)];
  for (const int index : experts) {
    Expert& used = expert(layer, index);
    PUNA_CHECK(used.scored != now, "expert {} is named twice", index);
    used.score = faded(used.score, now - used.scored) + 1;
    used.scored = now;
    ++statistics_.uses;
  }
  // Whatever happens, no slot stays pinned.
  struct Unpin {
    std::vector<Slot>& slots;
    ~Unpin() {
      for (Slot& slot : slots) slot.pinned = false;
    }
  } unpin{slots_};

  std::vector<int> waiting, missing;
  std::vector<Present> present;
  const auto ready = [&](int index) {
    Slot& slot = slots_[static_cast<size_t>(expert(layer, index).slot)];
    present.push_back({index, slot.bytes});
  };
  for (const int index : experts) {
    const int at = expert(layer, index).slot;
    const int64_t bytes = layout_.blocks[static_cast<size_t>(layer)][static_cast<size_t>(index)].bytes;
    if (at < 0) {
      statistics_.bytes_missed += bytes;
      missing.push_back(index);
      continue;
    }
    Slot& slot = slots_[static_cast<size_t>(at)];
    ++statistics_.hits;
    if (slot.guess) ++statistics_.useful_prefetches, statistics_.bytes_missed += bytes;
    slot.guess = false;
    slot.pinned = true;
    if (slot.ticket == 0) {
      ready(index);
    } else {
      reader_.hurry(slot.ticket);
      waiting.push_back(index);
    }
  }
  size_t next_missing = 0;
  bool first = true;
  while (first || !present.empty() || !waiting.empty() || next_missing < missing.size()) {
    for (; next_missing < missing.size(); ++next_missing) {
      Slot* slot = free_slot(/*for_guess=*/false, 0);
      if (slot == nullptr) break;
      begin_read(layer, missing[next_missing], *slot, /*guess=*/false);
      slot->pinned = true;
      waiting.push_back(missing[next_missing]);
    }
    if (present.empty() && !first) {
      // Nothing to compute: the first that comes, and all that came with it.
      await(slots_[static_cast<size_t>(expert(layer, waiting.front()).slot)]);
    }
    std::erase_if(waiting, [&](int index) {
      Slot& slot = slots_[static_cast<size_t>(expert(layer, index).slot)];
      if (slot.ticket != 0 && !reader_.is_done(slot.ticket)) return false;
      if (slot.ticket != 0) await(slot);
      ready(index);
      return true;
    });
    if (first || !present.empty()) use(present);
    first = false;
    for (const Present& done : present) slots_[static_cast<size_t>(expert(layer, done.expert).slot)].pinned = false;
    present.clear();
  }
}

void ExpertStore::prefetch(int layer, std::span<const int> experts) {
  for (const int index : experts) check(layer, index);
  const int64_t now = visits_[static_cast<size_t>(layer)];
  for (const int index : experts) {
    Expert& wanted = expert(layer, index);
    statistics_.predicted += wanted.predicted ? 0 : 1;
    wanted.predicted = true;
    if (wanted.slot >= 0) continue;
    Slot* slot = free_slot(/*for_guess=*/true, faded(wanted.score, now - wanted.scored));
    if (slot == nullptr) continue;
    begin_read(layer, index, *slot, /*guess=*/true);
    ++statistics_.prefetches;
  }
}

StoreStatistics ExpertStore::statistics() const {
  StoreStatistics statistics = statistics_;
  statistics.bytes_read = reader_.bytes_read();
  return statistics;
}

void ExpertStore::warm(const Json& profile, std::string_view where) {
  std::vector<size_t> sizes;
  for (const auto& layer : experts_) sizes.push_back(layer.size());
  const std::vector<std::vector<int64_t>> rows = profile_rows(profile, sizes, where);
  std::vector<std::pair<int, int>> order;
  for (size_t l = 0; l < experts_.size(); ++l) {
    double all = 1;
    for (const int64_t each : rows[l]) all += static_cast<double>(each);
    for (size_t e = 0; e < experts_[l].size(); ++e) {
      // What the score tends to when this share of all tokens comes here, one at a time.
      experts_[l][e].score = static_cast<double>(rows[l][e]) / all / (1 - std::exp2(-1 / kHalfLife));
      experts_[l][e].scored = visits_[l];
      order.emplace_back(static_cast<int>(l), static_cast<int>(e));
    }
  }
  std::stable_sort(order.begin(), order.end(), [&](const auto& a, const auto& b) {
    return expert(a.first, a.second).score > expert(b.first, b.second).score;
  });
  size_t next = 0;
  for (Slot& slot : slots_) {
    if (!slot.empty()) continue;
    while (next < order.size() && expert(order[next].first, order[next].second).slot >= 0) ++next;
    if (next == order.size()) break;
    begin_read(order[next].first, order[next].second, slot, /*guess=*/true);
    slot.guess = false;  // not one that its visit must prove
  }
}

}  // namespace puna::experts
