// An endless, repeatable stream of samples from several datasets.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "data/dataset.h"

namespace puna::data {

struct MixtureSource {
  std::string name;
  std::shared_ptr<const Dataset> dataset;
  double weight = 1;      // share of the tokens, relative to the other sources
  double max_epochs = 0;  // 0: no limit; else OutOfData when a sample beyond it is asked for
};

/// A source has been gone through as often as it may be.
class OutOfData : public Error {
 public:
  using Error::Error;
};

/// A document, or a piece of one that is longer than the sequence length. Positions restart at 0. The loss of a piece's
/// first token is as in the document, though nothing in the piece predicts it.
struct Sample {
  std::span<const TokenId> tokens;
  std::span<const uint8_t> loss;
  std::vector<ImageView> images;
  size_t source = 0;  // index into the mixture's sources
  int64_t document = 0;
};

/// at(n) is a pure function of (sources, seed, sequence length, n): stopping and going on changes nothing. Each source
/// is gone through epoch after epoch, in an order of its own that the other sources do not change.
class Mixture {
 public:
  /// Throws Error on no sources, two of one name, an empty dataset, a bad weight, and an image of more tokens than
  /// `sequence_length`.
  Mixture(std::vector<MixtureSource> sources, uint64_t seed, int64_t sequence_length);

  /// n < 2^62. Throws OutOfData, and Error for a damaged shard. Safe from several threads.
  Sample at(uint64_t n) const;
  const std::vector<MixtureSource>& sources() const { return sources_; }

 private:
  struct Pieces;  // of one source: its documents cut to the sequence length
  struct Block;   // of about 1,024 samples: which source each is from
  struct Cache;   // the block last asked for; shared by copies
  uint64_t samples_before_block(uint64_t block) const;
  uint64_t samples_before_block(uint64_t block, size_t source) const;
  std::shared_ptr<const Block> block_of(uint64_t n) const;

  std::vector<MixtureSource> sources_;
  std::vector<std::shared_ptr<const Pieces>> pieces_;
  std::vector<uint64_t> share_;  // of the samples, times 2^48
  uint64_t seed_;
  std::shared_ptr<Cache> cache_;
};

}  // namespace puna::data
