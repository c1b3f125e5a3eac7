// The manifest of a checkpoint: what its shards hold and hash to. Private to src/train/checkpoint*.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/json.h"

namespace puna::train::internal {

struct ManifestShard {
  int64_t bytes = 0;
  std::string hash;  // of the whole file
};

struct ManifestTensor {
  DType dtype = DType::F32;
  std::vector<int64_t> shape;
  size_t shard = 0;  // index into `shards`
};

struct Manifest {
  int64_t step = 0;
  Json state;
  std::vector<ManifestShard> shards;
  std::map<std::string, ManifestTensor> tensors;
};

constexpr const char* kManifestName = "manifest.json";
constexpr int64_t kMaxManifestBytes = int64_t{256} << 20;

/// One line of JSON with a hash of itself. Throws Error(`where`) for a state that is not UTF-8 or nested too deep, and
/// over kMaxManifestBytes.
std::string manifest_text(const Manifest& manifest, std::string_view where);

/// Throws Error(`where`) for anything that manifest_text() does not write.
Manifest parse_manifest(std::string_view text, std::string_view where);

/// "shard-00001.safetensors" for index 0. Files have no other names, so that a manifest can name none outside.
std::string shard_name(size_t index);

/// "step-00001200".
std::string step_name(int64_t step);
/// The step of such a name; nullopt for any other.
std::optional<int64_t> step_of(std::string_view name);

}  // namespace puna::train::internal
