// src/experts: routed experts that do not all fit in memory: a cache of fixed size in front of a file.
// It moves bytes and knows nothing of what is computed with them.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/json.h"
#include "io/direct_reader.h"

namespace puna::experts {

/// Where an expert's weights lie in the file: multiples of io::kDirectAlignment.
struct Block {
  int64_t offset = 0, bytes = 0;
};

struct StoreLayout {
  std::filesystem::path file;
  std::vector<std::vector<Block>> blocks;  // [layers with experts][experts]

  int64_t largest_block() const;
};

/// Counted since the store was made. A use is an expert of a visit.
struct StoreStatistics {
  int64_t uses = 0, hits = 0;  // hits: there, or on their way, when asked for
  int64_t bytes_read = 0;
  int64_t bytes_missed = 0;  // of these, what a visit needed and had to be read: the rest are guesses that were wrong
  int64_t prefetches = 0, useful_prefetches = 0;  // read ahead; of these used before they were given up
  int64_t predicted = 0, predicted_right = 0;     // experts named by prefetch(); of these in the layer's next visit
  double stall_seconds = 0;                       // waiting with nothing left to compute
  double hit_rate() const { return uses == 0 ? 0 : static_cast<double>(hits) / static_cast<double>(uses); }
  Json json() const;
  std::string text() const;  // for people, in one line
};

/// One caller at a time. Which experts stay is decided by how often and how lately each was used: a use counts 1, and
/// half of that after `kHalfLife` visits of its layer.
class ExpertStore {
 public:
  static constexpr double kHalfLife = 64;

  /// Throws Error, which names the least budget that works, when `budget_bytes` has no room for two experts; and when
  /// the file cannot be opened or ends before the last block.
  ExpertStore(StoreLayout layout, int64_t budget_bytes);
  ~ExpertStore();

  struct Present {
    int expert = 0;
    const std::byte* bytes = nullptr;  // aligned to io::kDirectAlignment, until `use` returns
  };
  using Use = std::function<void(std::span<const Present>)>;

  /// Gives each of `experts` (each once, any order) to `use` exactly once, in as many calls as it takes: first those
  /// that are there, perhaps none, then the others as they come, so that reading and computing overlap. Throws Error
  /// when one cannot be read; what `use` has been given by then was right.
  void visit(int layer, std::span<const int> experts, const Use& use);

  /// Begins to read those that are not there, in place of what is worth less. A guess: visit() need not name them.
  void prefetch(int layer, std::span<const int> experts);

  StoreStatistics statistics() const;
  int64_t num_slots() const { return static_cast<int64_t>(slots_.size()); }
  const std::string& method() const { return reader_.method(); }

  /// Experts start with what a profile ({"rows": [layers][experts]}) says they are worth, and the best ones are read.
  /// Throws Error(`where`) when it is of another model or malformed.
  void warm(const Json& profile, std::string_view where);

 private:
  struct Slot {
    std::byte* bytes = nullptr;
    int layer = -1, index = -1;           // of the expert that it holds or awaits; -1: empty
    io::DirectReader::Ticket ticket = 0;  // of the read that was not yet waited for; 0: none
    bool pinned = false;                  // of the visit that runs
    bool guess = false;                   // read ahead and not used since

    bool empty() const { return layer < 0; }
  };
  struct Expert {
    int slot = -1;
    double score = 0;  // at visit `scored` of its layer
    int64_t scored = 0;
    bool predicted = false;
  };

  Expert& expert(int layer, int index) { return experts_[static_cast<size_t>(layer)][static_cast<size_t>(index)]; }
  double worth(const Slot& slot) const;
  Slot* free_slot(bool for_guess, double worth_of_new);
  void begin_read(int layer, int index, Slot& slot, bool guess);
  void evict(Slot& slot);
  void await(Slot& slot);
  void count_prediction(int layer, std::span<const int> experts);
  void check(int layer, int index) const;

  StoreLayout layout_;
  io::DirectReader reader_;
  std::unique_ptr<io::AlignedBytes> memory_;
  std::vector<Slot> slots_;
  std::vector<std::vector<Expert>> experts_;  // [layers][experts]
  std::vector<int64_t> visits_;               // [layers]
  StoreStatistics statistics_;
};

}  // namespace puna::experts
