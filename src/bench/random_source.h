// A random model that is nowhere stored: its values are made when they are read.
#pragma once

#include "bench/routing.h"
#include "checkpoint/model_source.h"
#include "quant/rules.h"

namespace puna::bench {

class RandomSource : public checkpoint::ModelSource {
 public:
  RandomSource(const arch::Llama4Config& config, const quant::Rules& rules, uint64_t seed);

  std::string format() const override { return "random"; }
  int64_t stored_bytes() const override { return 0; }
  bool is_zero_copy(const arch::ParamRow&, at::ScalarType) const override { return false; }
  /// Kept rows alone.
  at::Tensor load(const arch::ParamRow& row, at::ScalarType dtype) const override;
  bool is_quantised(const arch::ParamRow& row) const override { return integers(row).has_value(); }
  std::optional<checkpoint::IntegerRow> integers(const arch::ParamRow& row) const override;
  /// The same values for the same arguments.
  void read_integers(const arch::ParamRow& row, int64_t matrix, int64_t begin, int64_t end,
                     const checkpoint::IntegerBlock& out) const override;

 private:
  uint64_t seed_of(const arch::ParamRow& row, int64_t matrix, int64_t begin) const;

  quant::Rules rules_;
  RoutingCodes codes_;
  uint64_t seed_;
};

}  // namespace puna::bench
