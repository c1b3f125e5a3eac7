#include "train/checkpoint.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <future>
#include <utility>

#include "base/error.h"
#include "base/progress.h"
#include "checkpoint/scalar_type.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/hash.h"
#include "io/safetensors.h"
#include "io/text.h"
#include "train/checkpoint_manifest.h"
#include "train/checkpoint_write.h"

namespace puna::train {
namespace fs = std::filesystem;
using internal::Manifest;
namespace {

io::Descriptor locked(const fs::path& dir) {
  auto lock = io::lock_directory(dir);
  if (!lock)
    fail(dir.string(), "another run is writing its checkpoints here; stop it first or choose another directory");
  return std::move(*lock);
}

/// Copies into the memory of the last snapshot where names, shapes and types are as they were.
void take_snapshot(const Checkpoint& from, Checkpoint& to) {
  const at::NoGradGuard no_grad;
  std::map<std::string, at::Tensor> before = std::exchange(to.tensors, {});
  for (const auto& [name, tensor] : from.tensors) {
    at::Tensor copy;
    if (const auto found = before.find(name); found != before.end()) copy = std::move(found->second);
    if (!copy.defined() || copy.sizes() != tensor.sizes() || copy.scalar_type() != tensor.scalar_type())
      copy = at::empty(tensor.sizes(), at::dtype(tensor.scalar_type()).device(at::kCPU));
    to.tensors.emplace(name, copy.copy_(tensor));
  }
  to.step = from.step;
  to.state = from.state;
}

/// One shard: its size and hash, then each tensor that the manifest says is in it, and no other.
void load_shard(const fs::path& dir, size_t shard, const Manifest& manifest,
                std::map<std::string, at::Tensor>& tensors) {
  const fs::path path = dir / internal::shard_name(shard);
  const std::string where = path.string();
  const auto file = io::MappedFile::open(path);
  const auto& expected = manifest.shards[shard];
  if (static_cast<int64_t>(file->bytes().size()) != expected.bytes)
    fail(where, "has {} bytes, the manifest says {}", file->bytes().size(), expected.bytes);
  if (io::hash_of(file->bytes()) != expected.hash)
    fail(where, "is damaged: it does not hash to what the manifest says");
  const io::TensorFile parsed = io::parse_safetensors(file->bytes(), file, where);
  for (const io::TensorView& view : parsed.tensors()) {
    const auto entry = manifest.tensors.find(view.name);
    if (entry == manifest.tensors.end() || entry->second.shard != shard)
      fail(where, "holds the tensor '{}', which the manifest does not place here", io::printable(view.name));
    const auto type = checkpoint::scalar_type(view.dtype);
    if (!type || view.dtype != entry->second.dtype || view.shape != entry->second.shape)
      fail(where, "tensor '{}' is {} {}, the manifest says {} {}", io::printable(view.name), dtype_name(view.dtype),
           io::shape_text(view.shape), dtype_name(entry->second.dtype), io::shape_text(entry->second.shape));
    at::Tensor tensor = at::empty(view.shape, at::dtype(*type));
    if (!view.bytes.empty()) std::memcpy(tensor.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
    tensors.emplace(view.name, std::move(tensor));
  }
}

}  // namespace

struct CheckpointWriter::Impl {
  explicit Impl(CheckpointOptions given) : options(std::move(given)), lock(locked(options.dir)) {}
  ~Impl() {
    if (writing.valid()) writing.wait();
  }

  CheckpointOptions options;
  io::Descriptor lock;  // held while a writer lives
  Checkpoint snapshot;
  std::future<void> writing;
};

CheckpointWriter::CheckpointWriter(CheckpointOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {
  internal::remove_left_overs(impl_->options.dir);
}

CheckpointWriter::~CheckpointWriter() = default;

void CheckpointWriter::save(const Checkpoint& checkpoint) {
  wait();
  PUNA_CHECK(checkpoint.step >= 0, "step {}", checkpoint.step);
  for (const auto& [name, tensor] : checkpoint.tensors)
    PUNA_CHECK(tensor.defined() && checkpoint::dtype_of(tensor.scalar_type()), "'{}' cannot be stored", name);
  internal::check_free_space(impl_->options.dir, checkpoint);
  take_snapshot(checkpoint, impl_->snapshot);
  impl_->writing = std::async(std::launch::async,
                              [impl = impl_.get()] { internal::write_checkpoint(impl->options, impl->snapshot); });
}

void CheckpointWriter::check() {
  if (impl_->writing.valid() && impl_->writing.wait_for(std::chrono::seconds(0)) == std::future_status::ready) wait();
}

void CheckpointWriter::wait() {
  if (impl_->writing.valid()) impl_->writing.get();
}

Checkpoint load_checkpoint(const fs::path& step_dir, const CheckpointCheck& check) {
  const fs::path dir = step_dir.lexically_normal();
  const fs::path path = dir / internal::kManifestName;
  Manifest manifest = internal::parse_manifest(io::read_file(path, internal::kMaxManifestBytes), path.string());
  const auto named = internal::step_of((dir.has_filename() ? dir : dir.parent_path()).filename().string());
  if (named && *named != manifest.step)
    fail(path.string(), "is of step {}, the directory's name says {}", manifest.step, *named);

  Checkpoint checkpoint{manifest.step, {}, std::move(manifest.state)};
  Progress progress("Loading the checkpoint", static_cast<int64_t>(manifest.shards.size()));
  for (size_t shard = 0; shard < manifest.shards.size(); ++shard) {
    load_shard(dir, shard, manifest, checkpoint.tensors);
    progress.add(1);
  }
  for (const auto& [name, tensor] : manifest.tensors)
    if (!checkpoint.tensors.contains(name))
      fail((dir / internal::shard_name(tensor.shard)).string(), "lacks the tensor '{}' of the manifest",
           io::printable(name));
  if (check) check(checkpoint, path.string());
  return checkpoint;
}

std::vector<int64_t> checkpoint_steps(const fs::path& dir) {
  std::vector<int64_t> steps;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(dir, ec))
    if (const auto step = internal::step_of(entry.path().filename().string()); step && entry.is_directory(ec))
      steps.push_back(*step);
  std::sort(steps.begin(), steps.end());
  return steps;
}

LoadedCheckpoint load_newest_checkpoint(const fs::path& dir, const std::function<void(const std::string&)>& on_damaged,
                                        const CheckpointCheck& check) {
  auto steps = checkpoint_steps(dir);
  if (steps.empty()) fail(dir.string(), "holds no checkpoint (step-XXXXXXXX)");
  std::string reasons;
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path path = dir / internal::step_name(*step);
    try {
      return {load_checkpoint(path, check), path};
    } catch (const Error& error) {
      on_damaged(error.what());
      reasons += fmt::format("{}{}", reasons.empty() ? "" : "; ", error.what());
    }
  }
  fail(dir.string(), "holds no whole checkpoint; start another run with out=DIR: {}", reasons);
}

}  // namespace puna::train
