// An endless, repeatable stream of samples from several datasets.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"

namespace puna::data {

struct MixtureSource {
  std::string name;
  std::shared_ptr<const Dataset> dataset;
  double weight = 1;      // share of the tokens, relative to the other sources
  double max_epochs = 0;  // 0: no limit; else Error when a sample beyond it is asked for
};

/// A document, or a piece of one that is longer than the sequence length. Positions restart at 0.
struct Sample {
  std::span<const TokenId> tokens;
  std::span<const uint8_t> loss;
  std::vector<ImageView> images;
  size_t source = 0;  // index into the mixture's sources
  int64_t document = 0;
  int64_t epoch = 0;
};

/// at(n) is a pure function of (sources, seed, sequence length, n): stopping and going on changes nothing.
class Mixture {
 public:
  Mixture(std::vector<MixtureSource> sources, uint64_t seed, int64_t sequence_length);

  Sample at(uint64_t n) const;
  const std::vector<MixtureSource>& sources() const { return sources_; }

 private:
  struct Pieces;  // of one source: its documents cut to the sequence length
  std::vector<MixtureSource> sources_;
  std::vector<std::shared_ptr<const Pieces>> pieces_;
  std::vector<double> sample_share_;
  uint64_t seed_;
};

}  // namespace puna::data
