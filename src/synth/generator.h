// src/synth: generated records: arithmetic, pictures with their descriptions, facts to look up, questions about Puna,
// key-value retrieval. Every record is a pure function of (generator, seed, number); held-out splits never overlap.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/record.h"

namespace puna::synth {

enum class Split { kTrain, kHeldOut };

struct GeneratorOptions {
  std::string kind;  // "arithmetic", "pictures", ...
  int64_t documents = 0;
  uint64_t seed = 0;
  Split split = Split::kTrain;
  int64_t length = 0;  // rough tokens of a document where the kind has a choice (lookup, retrieval); 0: its default
};

/// Throws Error for an unknown kind, naming the nearest.
std::unique_ptr<data::RecordSource> open_generator(const GeneratorOptions& options);
std::vector<std::string> generator_names();

}  // namespace puna::synth
