// The files that a tokenizer is trained on, read in blocks by several threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string_view>
#include <vector>

#include "text/piece_counts.h"

namespace puna::text {

struct TrainingFile {
  std::filesystem::path path;
  int64_t bytes = 0;
  bool json_lines = false;  // named *.jsonl: a JSON object a line
};

struct TrainingFiles {
  std::vector<TrainingFile> files;
  int64_t bytes = 0;
  int64_t left_out = 0;  // files of directories that begin as no text does
};

/// The files that are named, and those in named directories and their subdirectories that begin as text, hidden ones
/// left out, in the order of their names. Throws Error for what cannot be read.
TrainingFiles find_training_files(std::span<const std::filesystem::path> paths);

/// The pieces of all texts, each text split on its own: whole files, or of *.jsonl the string "text" and the contents
/// of "messages" (strings, or lists of parts with "text"). Throws Error naming file and line of a malformed line,
/// and Interrupted once `interrupt` is set.
PieceCounts count_pieces(const TrainingFiles& files, int64_t threads, const std::atomic<bool>* interrupt = nullptr);

/// The first place at or after `from` where a cut of `text` leaves its pieces as they are; its size when there is none.
size_t next_cut(std::string_view text, size_t from);

}  // namespace puna::text
