#include "train/checkpoint_write.h"

#include <fcntl.h>

#include <cstdio>

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/scalar_type.h"
#include "io/directory.h"
#include "io/file.h"
#include "io/hash.h"
#include "io/safetensors.h"
#include "train/checkpoint_manifest.h"

namespace puna::train::internal {
namespace fs = std::filesystem;
namespace {

constexpr int64_t kBlock = 4096;  // what a file system gives at once
constexpr std::string_view kUnfinished = ".tmp", kReplaced = ".old";

/// -1 when the file system does not tell.
int64_t free_bytes(const fs::path& dir) {
  std::error_code ec;
  const auto space = fs::space(dir, ec);
  return ec ? -1 : static_cast<int64_t>(space.available);
}

fs::path unfinished(fs::path path) { return path += kUnfinished; }

/// The tensors in order, a new shard whenever the next one would not fit.
std::vector<std::vector<std::string>> split(const Checkpoint& checkpoint, int64_t max_bytes) {
  std::vector<std::vector<std::string>> shards;
  int64_t bytes = 0;
  for (const auto& [name, tensor] : checkpoint.tensors) {
    const auto size = static_cast<int64_t>(tensor.nbytes());
    if (shards.empty() || bytes + size > max_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(name);
    bytes += size;
  }
  return shards;
}

ManifestShard write_shard(const fs::path& path, const Checkpoint& checkpoint, const std::vector<std::string>& names) {
  std::vector<io::TensorSpec> specs;
  for (const std::string& name : names) {
    const at::Tensor& tensor = checkpoint.tensors.at(name);
    specs.push_back({name, *checkpoint::dtype_of(tensor.scalar_type()), tensor.sizes().vec()});
  }
  io::SafetensorsWriter writer(path, std::move(specs));
  for (const std::string& name : names) {
    const at::Tensor& tensor = checkpoint.tensors.at(name);
    writer.write({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
  }
  writer.commit();
  return {static_cast<int64_t>(fs::file_size(path)), io::hash_of_file(path)};
}

void write_files(const fs::path& dir, const Checkpoint& checkpoint, int64_t max_shard_bytes) {
  std::error_code ec;
  if (!fs::create_directory(dir, ec)) fail(dir.string(), "cannot make this directory: {}", ec.message());
  Manifest manifest{checkpoint.step, checkpoint.state, {}, {}};
  const auto shards = split(checkpoint, max_shard_bytes);
  for (size_t s = 0; s < shards.size(); ++s) {
    manifest.shards.push_back(write_shard(dir / shard_name(s), checkpoint, shards[s]));
    for (const std::string& name : shards[s]) {
      const at::Tensor& tensor = checkpoint.tensors.at(name);
      manifest.tensors[name] = {*checkpoint::dtype_of(tensor.scalar_type()), tensor.sizes().vec(), s};
    }
  }
  const fs::path path = dir / kManifestName;
  io::write_file(path, manifest_text(manifest, path.string()));
}

/// A checkpoint that is already there is replaced in one step where the file system can exchange two names.
void put_in_place(const fs::path& made, const fs::path& target) {
  if (!io::path_exists(target)) return fs::rename(made, target);
  if (renameat2(AT_FDCWD, made.c_str(), AT_FDCWD, target.c_str(), RENAME_EXCHANGE) == 0) return;
  fs::path aside = target;
  aside += kReplaced;
  fs::rename(target, aside);  // where it is found again, should the next line never run
  std::error_code ec;
  fs::rename(made, target, ec);
  fs::rename(aside, ec ? target : unfinished(aside));
  if (ec) fail(target.string(), "cannot be renamed: {}", ec.message());
}

/// Older checkpoints that no rule keeps. Newer ones, of a run that went on from an older step, are left alone.
void prune(const CheckpointOptions& options, int64_t newest) {
  if (options.keep_last <= 0) return;
  auto steps = checkpoint_steps(options.dir);
  std::erase_if(steps, [&](int64_t step) { return step > newest; });
  const size_t kept = static_cast<size_t>(options.keep_last);
  for (size_t i = 0; i + kept < steps.size(); ++i) {
    if (options.keep_every > 0 && steps[i] % options.keep_every == 0) continue;
    // Renamed first: a removal that is cut short must not look like a damaged checkpoint.
    const fs::path path = options.dir / step_name(steps[i]);
    std::error_code ec;
    fs::rename(path, unfinished(path), ec);
    if (ec) spdlog::warn("{}: this old checkpoint cannot be removed: {}", path.string(), ec.message());
  }
}

/// A process that ended between two renames has left a whole checkpoint under this name.
void put_back(const fs::path& aside) {
  fs::path target = aside;
  target.replace_extension();
  std::error_code ec;
  fs::rename(aside, io::path_exists(target) ? unfinished(aside) : target, ec);
  if (ec) spdlog::warn("{}: this checkpoint cannot be renamed: {}", aside.string(), ec.message());
}

}  // namespace

int64_t needed_bytes(const Checkpoint& checkpoint) {
  constexpr int64_t kEntry = 100, kSize = 24;  // of a tensor and of one of its sizes, in text
  int64_t bytes = 8 * kBlock;
  bytes += static_cast<int64_t>(checkpoint.state.dump(-1, ' ', false, Json::error_handler_t::replace).size());
  for (const auto& [name, tensor] : checkpoint.tensors) {
    const int64_t entry = static_cast<int64_t>(name.size()) + kEntry + kSize * tensor.dim();
    bytes += static_cast<int64_t>(tensor.nbytes()) + 2 * entry;  // in the shard's header and in the manifest
  }
  return bytes + bytes / 50;
}

void check_free_space(const fs::path& dir, const Checkpoint& checkpoint) {
  const int64_t needed = needed_bytes(checkpoint), free = free_bytes(dir);
  if (free < 0 || free >= needed) return;
  fail((dir / step_name(checkpoint.step)).string(),
       "the checkpoint was not saved: it needs {} on disk, {} are free; older checkpoints are intact; make room and go "
       "on with --resume",
       format_bytes(needed), format_bytes(free));
}

void write_checkpoint(const CheckpointOptions& options, const Checkpoint& checkpoint) {
  const fs::path target = options.dir / step_name(checkpoint.step), made = unfinished(target);
  std::error_code ec;
  try {
    write_files(made, checkpoint, options.max_shard_bytes);
    put_in_place(made, target);
  } catch (const std::exception& error) {
    fs::remove_all(made, ec);
    const int64_t needed = needed_bytes(checkpoint), free = free_bytes(options.dir);
    fail(target.string(), "the checkpoint was not saved: {}{}; older checkpoints are intact; then go on with --resume",
         error.what(),
         free < 0 || free >= needed
             ? ""
             : fmt::format("; it needs {} on disk, {} are free", format_bytes(needed), format_bytes(free)));
  }
  io::sync_directory(options.dir);
  io::write_file(options.dir / "latest", step_name(checkpoint.step) + "\n");
  prune(options, checkpoint.step);
  remove_left_overs(options.dir);
}

void remove_left_overs(const fs::path& dir) {
  std::error_code ec;
  std::vector<fs::path> found, replaced;
  for (const auto& entry : fs::directory_iterator(dir, ec))
    if (entry.path().extension() == kReplaced && step_of(entry.path().stem().string()))
      replaced.push_back(entry.path());
  for (const fs::path& path : replaced) put_back(path);
  for (const auto& entry : fs::directory_iterator(dir, ec)) {
    const std::string name = entry.path().filename().string();
    if ((name.starts_with("step-") && name.ends_with(kUnfinished)) || name.starts_with("latest.tmp."))
      found.push_back(entry.path());
  }
  for (const fs::path& path : found) {
    fs::remove_all(path, ec);
    if (ec) spdlog::warn("{}: this unfinished checkpoint cannot be removed: {}", path.string(), ec.message());
  }
}

}  // namespace puna::train::internal
