// dataset.json: what a dataset consists of, with hashes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/shard.h"

namespace puna::data {

/// The manifest of a finished dataset, and that of an unfinished build.
inline constexpr const char* kManifestName = "dataset.json";
inline constexpr const char* kPartialManifestName = "dataset.partial.json";

struct ShardEntry {
  std::string file;  // a plain name beside the manifest
  std::string hash;
  int64_t documents = 0, tokens = 0, images = 0;
};

struct Manifest {
  std::string fingerprint;  // of the records
  std::string encoding, tokenizer;
  TokenRange range;
  std::vector<ShardEntry> shards;

  std::string content_hash() const;
};

/// Throws Error naming the file for anything malformed, or written by a later version.
Manifest read_manifest(const std::filesystem::path& path);
void write_manifest(const std::filesystem::path& path, const Manifest& manifest);

/// The shard that `entry` speaks of. Throws Error when it is missing, corrupt, has other counts, or (`verify`) another
/// hash.
Shard open_shard(const std::filesystem::path& dir, const ShardEntry& entry, const TokenRange& range, bool verify);

}  // namespace puna::data
