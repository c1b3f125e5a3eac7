// Which experts the tokens of one sequence went to, and with which scores.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "ops/moe.h"

namespace puna::engine {

class RoutingRecord {
 public:
  static constexpr uint16_t kUnknown = UINT16_MAX;
  static constexpr int64_t kEntryBytes = 3;

  /// Of a model with so many `layers` of experts. Positions from `most_positions` on are not recorded.
  RoutingRecord(int64_t layers, int64_t experts_per_token, int64_t most_positions);

  /// Rows `row` to `row + count - 1` of a step are those at `position` and on; `step` has one entry per layer.
  void take(std::span<const ops::Routing> step, int64_t row, int64_t position, int64_t count);

  int64_t layers() const { return layers_; }
  int64_t experts_per_token() const { return chosen_; }
  int64_t positions() const;  // before the end of what was recorded
  /// [layers, experts per token], best first; empty for a position that was not run, as it came from the cache.
  std::span<const uint16_t> experts(int64_t position) const;
  /// Of the same, in parts of 255.
  std::span<const uint8_t> scores(int64_t position) const;

 private:
  int64_t width() const { return layers_ * chosen_; }

  int64_t layers_, chosen_, most_positions_;
  std::vector<uint16_t> experts_;  // [positions, layers, A]
  std::vector<uint8_t> scores_;    // the same
};

}  // namespace puna::engine
