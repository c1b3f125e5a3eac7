// Checkpoints of a run: sharded safetensors with a manifest, written in the background, whole or not at all.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"

namespace puna::train {

/// Everything that a run goes on from. Names are paths: "weights/<parameter>", "adam_m/<parameter>", ...
struct Checkpoint {
  int64_t step = 0;
  std::map<std::string, at::Tensor> tensors;
  // What is no tensor: data position, hashes of recipe and data. No random state: samples are pure functions of seed
  // and number, and nothing else is drawn after the first weights.
  Json state;
};

struct CheckpointOptions {
  std::filesystem::path dir;  // holds step-00001200/ ..., and the file `latest`, which names one of them
  int keep_last = 2;          // 0: all
  int64_t keep_every = 0;     // steps that are multiples of it are kept for good; 0: none
  int64_t max_shard_bytes = int64_t{1} << 30;
};

/// Writes checkpoints while training goes on: save() copies and returns. One at a time: a save() during another waits.
/// A directory has one writer at a time. The copies stay in memory for the next save().
class CheckpointWriter {
 public:
  /// Makes the directory and removes what killed runs left unfinished. Throws Error when another writer holds it.
  explicit CheckpointWriter(CheckpointOptions options);
  ~CheckpointWriter();  // waits; errors are lost, so call wait() first

  /// Throws Error of this or of an earlier save that failed (a full disk); older checkpoints are then intact.
  void save(const Checkpoint& checkpoint);
  /// Throws Error when a save that has ended in the background failed; never waits.
  void check();
  /// Until everything is on disk. Throws Error when writing failed.
  void wait();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct LoadedCheckpoint {
  Checkpoint checkpoint;
  std::filesystem::path dir;
};

/// Throws Error(`where`, which names the manifest) for a checkpoint that the caller cannot go on from.
using CheckpointCheck = std::function<void(const Checkpoint& checkpoint, const std::string& where)>;

/// The newest checkpoint whose files are all whole and hash to what the manifest says, and that `check` lets pass. Each
/// other one is told to `on_damaged` (the file and the reason) and passed over. Throws Error when none is left, with
/// the reasons.
LoadedCheckpoint load_newest_checkpoint(const std::filesystem::path& dir,
                                        const std::function<void(const std::string&)>& on_damaged,
                                        const CheckpointCheck& check = {});
/// Steps of the checkpoints there, ascending; damaged ones included.
std::vector<int64_t> checkpoint_steps(const std::filesystem::path& dir);
/// One particular checkpoint directory, verified. Throws Error that names the first file that is not as it was written.
Checkpoint load_checkpoint(const std::filesystem::path& step_dir, const CheckpointCheck& check = {});

}  // namespace puna::train
