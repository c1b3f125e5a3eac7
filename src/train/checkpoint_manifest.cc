#include "train/checkpoint_manifest.h"

#include <charconv>
#include <utility>

#include "base/error.h"
#include "io/hash.h"
#include "io/text.h"
#include "train/json_fields.h"

namespace puna::train::internal {
namespace {

constexpr const char* kFormat = "puna-checkpoint";
constexpr int64_t kVersion = 1;

std::string hash_of_text(std::string_view text) { return io::hash_of(std::as_bytes(std::span(text))); }

ManifestTensor parse_tensor(const std::string& name, const Json& json, size_t num_shards, std::string_view where) {
  const Fields fields(json, fmt::format("tensor '{}'", io::printable(name)), where);
  const auto dtype = dtype_from_name(fields.text("dtype"));
  if (!dtype)
    fail(where, "tensor '{}' has the unknown dtype '{}'", io::printable(name), io::printable(fields.text("dtype")));
  const int64_t shard = fields.count("shard");
  if (shard >= static_cast<int64_t>(num_shards))
    fail(where, "tensor '{}' is in shard {}, there are {}", io::printable(name), shard, num_shards);
  return {*dtype, fields.counts("shape"), static_cast<size_t>(shard)};
}

}  // namespace

std::string manifest_text(const Manifest& manifest, std::string_view where) {
  Json json = {{"format", kFormat},       {"version", kVersion},     {"step", manifest.step},
               {"state", manifest.state}, {"shards", Json::array()}, {"tensors", Json::object()}};
  for (size_t i = 0; i < manifest.shards.size(); ++i)
    json["shards"].push_back(
        {{"file", shard_name(i)}, {"bytes", manifest.shards[i].bytes}, {"hash", manifest.shards[i].hash}});
  for (const auto& [name, tensor] : manifest.tensors)
    json["tensors"][name] = {{"dtype", dtype_name(tensor.dtype)}, {"shape", tensor.shape}, {"shard", tensor.shard}};
  std::string text;
  try {
    json["hash"] = hash_of_text(json.dump());
    text = json.dump() + "\n";
  } catch (const Json::type_error& error) {
    fail(where, "the state or a name is not UTF-8: {}", io::printable(error.what()));
  }
  if (static_cast<int64_t>(text.size()) > kMaxManifestBytes)
    fail(where, "the manifest has {} bytes, more than the limit of {}", text.size(), kMaxManifestBytes);
  return text;
}

Manifest parse_manifest(std::string_view text, std::string_view where) {
  Json json = parse_json(text, where);
  const Fields fields(json, "the manifest", where);
  if (fields.text("format") != kFormat) fail(where, "is not the manifest of a checkpoint of Puna");
  if (const int64_t version = fields.count("version"); version != kVersion)
    fail(where, "has version {}, this program reads version {}; use the Puna that wrote it", version, kVersion);
  const std::string hash = fields.text("hash");
  json.erase("hash");
  if (hash_of_text(json.dump()) != hash) fail(where, "is damaged: its contents do not hash to what it says");

  Manifest manifest;
  manifest.step = fields.count("step");
  const Json& shards = fields.array("shards");
  for (size_t i = 0; i < shards.size(); ++i) {
    const Fields shard(shards[i], fmt::format("shard {}", i), where);
    if (shard.text("file") != shard_name(i))
      fail(where, "shard {} is named '{}', expected '{}'", i, io::printable(shard.text("file")), shard_name(i));
    manifest.shards.push_back({shard.count("bytes"), shard.text("hash")});
  }
  for (const auto& [name, tensor] : fields.object("tensors").items())
    manifest.tensors.emplace(name, parse_tensor(name, tensor, manifest.shards.size(), where));
  manifest.state = fields.at("state");
  return manifest;
}

std::string shard_name(size_t index) { return fmt::format("shard-{:05}.safetensors", index + 1); }

std::string step_name(int64_t step) { return fmt::format("step-{:08}", step); }

std::optional<int64_t> step_of(std::string_view name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  int64_t step = -1;
  std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), step);
  if (step < 0 || step_name(step) != name) return std::nullopt;
  return step;
}

}  // namespace puna::train::internal
