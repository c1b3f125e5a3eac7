// src/synth: generated records: arithmetic, pictures with their descriptions, facts to look up, questions about Puna,
// key-value retrieval, package descriptions. Every record is a pure function of (generator, seed, number); held-out
// splits never overlap.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/record.h"

namespace puna::synth {

/// What is asked about (a pair of numbers, the objects of a picture, a fact and its value) decides by its hash which
/// split a record belongs to; "questions" and "unknown" have their held-out questions in their file.
enum class Split { kTrain, kHeldOut };

struct GeneratorOptions {
  std::string kind;  // one of generator_names()
  int64_t documents = 0;
  uint64_t seed = 0;
  Split split = Split::kTrain;
  /// Rough tokens. retrieval: of every document; lookup, repeats, conversations: documents are spread over [length/4,
  /// length]. 0: the kind's default (256). Other kinds have no choice.
  int64_t length = 0;
  /// The questions of "questions" and "unknown"; empty: recipes/demo/facts.jsonl and recipes/demo/unknown.jsonl.
  /// "conversations" reads both from the folder that this names. "packages": the package database of this machine,
  /// /var/lib/dpkg/status when empty.
  std::filesystem::path file;
};

/// "packages", and the held-out splits of "questions" and "unknown", have each document once, so that they may give
/// fewer records than asked for. Ids are "KIND/WHAT/NUMBER". Throws Error for an unknown kind, naming the nearest; for
/// a length out of [32, 1048576]; for a length or file that the kind does not read; for a file that is missing or
/// malformed.
std::unique_ptr<data::RecordSource> open_generator(const GeneratorOptions& options);
std::vector<std::string> generator_names();

}  // namespace puna::synth
