// Models of random weights, of real width, written directly in the format that is to be measured.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>

#include "arch/config.h"
#include "quant/rules.h"

namespace puna::bench {

struct RandomModelOptions {
  arch::Llama4Config config;
  quant::Rules rules;  // kept tensors are BF16
  uint64_t seed = 0;
  bool packed = false;  // as puna pack would write it, without a second copy on the way
  int64_t threads = 1;  // that pack
  int64_t max_shard_bytes = int64_t{2} << 30;
  const std::atomic<bool>* interrupt = nullptr;
};

/// Writes config.json and the weights to `out`, a directory that is empty or not there. Quantised values are nearly
/// uniform over what their bits can say, with mean 0 and one scale per matrix, so that every product keeps the
/// deviation of its input; kept matrices are normal with the same deviation, norms are 1. Embedding and routers hold
/// routing codes (routing.h). No tokenizer is written. A file is whole or absent; config.json comes last. Throws Error
/// when `out` has something in it or the disk has no room.
void write_random_model(const std::filesystem::path& out, const RandomModelOptions& options);

}  // namespace puna::bench
