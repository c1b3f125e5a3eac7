// Learns the tokens of byte-level BPE: again and again, the most frequent pair of neighbours becomes a token.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "text/piece_counts.h"

namespace puna::text {

struct BpeOptions {
  int64_t num_tokens = 0;                        // the 256 bytes among them, special tokens not
  int64_t min_frequency = 2;                     // a pair that occurs less often is never joined
  int64_t max_token_bytes = 128;                 // at most kMaxTokenBytes
  bool single_digits = false;                    // an ASCII digit joins nothing
  const std::atomic<bool>* interrupt = nullptr;  // once set, Interrupted is thrown
};

struct BpeResult {
  std::vector<std::string> tokens;  // by rank; fewer than asked when the text gave no more
  int64_t text_tokens = 0;          // that the counted text now has
};

/// The bytes in byte-level order, then the learnt tokens. Of equally frequent pairs the one whose left token has the
/// lower rank wins, then the right one: as BpeTrainer of the Hugging Face tokenizers library, which learns the same.
BpeResult train_bpe(const PieceCounts& pieces, const BpeOptions& options);

}  // namespace puna::text
