// What the cache holds of a prefix, in a safetensors file: "contents" [positions], and for each layer the bytes of its
// blocks, "layers.i.keys" and "layers.i.values" [blocks, bytes].
#include <cstring>

#include "arch/config.h"
#include "base/error.h"
#include "engine/engine.h"
#include "io/hash.h"
#include "io/safetensors.h"
#include "io/text.h"

namespace puna::engine {
namespace {

constexpr const char* kFormat = "puna prefix 1";
constexpr int64_t kHashedBytes = 4096;  // of the beginning and the end of each weight

std::span<const std::byte> bytes_of(const at::Tensor& t) {
  return {static_cast<const std::byte*>(t.const_data_ptr()), t.nbytes()};
}

// What tells one model from another: its config, and some bytes of every weight and adapter.
std::string fingerprint(const LoadedModel& loaded) {
  io::Hasher hasher;
  const auto add = [&](const std::string& text) { hasher.update(std::as_bytes(std::span(text))); };
  const auto add_tensor = [&](const at::Tensor& t) {
    if (!t.defined()) return;
    const at::Tensor flat = t.reshape({-1});
    const int64_t count = std::min(flat.numel(), kHashedBytes / static_cast<int64_t>(t.element_size()));
    hasher.update(bytes_of(flat.narrow(0, 0, count).cpu().contiguous()));
    hasher.update(bytes_of(flat.narrow(0, flat.numel() - count, count).cpu().contiguous()));
  };
  add(arch::config_to_hf(loaded.config()).dump());
  for (const auto& [name, weight] : loaded.model->weights()) {
    add(name);
    add_tensor(weight.dense);
    if (weight.packed) {
      const kernels::WeightShapes& shapes = weight.packed->shapes;
      for (const int64_t i : {int64_t{0}, shapes.count() - 1}) {
        const int64_t bytes = kernels::packed_layout(shapes[i]).total_bytes;
        hasher.update({weight.packed->matrices[i], static_cast<size_t>(std::min(bytes, kHashedBytes))});
      }
    }
    for (const ops::LowRank& adapter : weight.adapters) {
      if (adapter.adapter != ops::LowRank::kAlways) continue;
      add_tensor(adapter.a);
      add_tensor(adapter.b);
      add(std::to_string(adapter.scale));
    }
  }
  return hasher.digest();
}

std::string storage_name(const model::PageFormat& format) {
  if (!format.type) return fmt::format("plain {}", c10::toString(format.dtype));
  const char* names[] = {"float32", "bfloat16", "int8"};
  return names[static_cast<size_t>(*format.type)];
}

std::string layer_name(int layer, const char* what) { return fmt::format("layers.{}.{}", layer, what); }

at::Tensor all_blocks(const model::PagedCache& pages, int layer, const std::vector<cache::BlockId>& ids, bool keys) {
  std::vector<at::Tensor> blocks;
  for (const cache::BlockId id : ids) {
    const model::PagedCache::BlockBytes bytes = pages.block_bytes(layer, id);
    blocks.push_back(keys ? bytes.keys : bytes.values);
  }
  return at::stack(blocks).cpu();
}

const io::TensorView& tensor_of(const io::TensorFile& file, const std::string& name, DType dtype,
                                const std::vector<int64_t>& shape, const std::string& where) {
  const io::TensorView* tensor = file.find(name);
  if (!tensor) fail(where, "has no tensor '{}'; is it a saved prefix of this model?", name);
  if (tensor->dtype != dtype || tensor->shape != shape)
    fail(where, "tensor '{}' is {} {}; expected {} {}", name, dtype_name(tensor->dtype), io::shape_text(tensor->shape),
         dtype_name(dtype), io::shape_text(shape));
  return *tensor;
}

std::string metadata_of(const io::TensorFile& file, const std::string& key, const std::string& where) {
  const auto found = file.metadata.find(key);
  if (found == file.metadata.end()) fail(where, "has no '{}' in its header; was it saved by Puna?", key);
  return found->second;
}

}  // namespace

int64_t Engine::save_prefix(const Prompt& prompt, const std::filesystem::path& file) {
  const c10::InferenceMode guard;
  const std::vector<uint64_t> contents = content_keys(loaded_, prompt);
  cache::SequenceBlocks held;
  blocks_.attach(held, contents, std::ssize(contents) / cache::kBlockTokens * cache::kBlockTokens);
  // Only what can go on without running anything again: up to where the blocks of both kinds are there.
  const int64_t positions = held.length / cache::kBlockTokens * cache::kBlockTokens;
  blocks_.release(held);
  if (positions == 0) fail(file.string(), "the cache holds no whole block of this prompt; run it first");
  blocks_.attach(held, std::span(contents).first(static_cast<size_t>(positions)), positions);
  try {
    if (held.length != positions)
      fail(file.string(), "the cache no longer holds the whole prefix; run the prompt again");
    std::vector<io::TensorSpec> specs = {{"contents", DType::I64, {positions}}};
    for (int layer = 0; layer < pages_.num_layers(); ++layer) {
      const auto& ids = pages_.chunked(layer) ? held.chunk : held.global;
      if (ids.empty()) continue;
      const int64_t bytes = pages_.block_bytes(layer, ids[0]).keys.numel();
      for (const char* what : {"keys", "values"})
        specs.push_back({layer_name(layer, what), DType::U8, {std::ssize(ids), bytes}});
    }
    io::SafetensorsWriter writer(
        file, specs, {{"format", kFormat}, {"model", fingerprint(loaded_)}, {"storage", storage_name(format_)}});
    writer.write(std::as_bytes(std::span(contents).first(static_cast<size_t>(positions))));
    for (int layer = 0; layer < pages_.num_layers(); ++layer) {
      const auto& ids = pages_.chunked(layer) ? held.chunk : held.global;
      if (ids.empty()) continue;
      for (const bool keys : {true, false}) writer.write(bytes_of(all_blocks(pages_, layer, ids, keys)));
    }
    writer.commit();
  } catch (...) {
    blocks_.release(held);
    throw;
  }
  blocks_.release(held);
  return positions;
}

int64_t Engine::load_prefix(const std::filesystem::path& path) {
  const c10::InferenceMode guard;
  const std::string where = path.string();
  const io::TensorFile file = io::open_safetensors(path);
  if (metadata_of(file, "format", where) != kFormat) fail(where, "is no '{}' file", kFormat);
  if (metadata_of(file, "model", where) != fingerprint(loaded_))
    fail(where, "was saved with another model or other adapters than {}", loaded_.name);
  if (const std::string storage = metadata_of(file, "storage", where); storage != storage_name(format_))
    fail(where, "holds keys and values as {}, this cache stores {}", storage, storage_name(format_));
  const io::TensorView* stored = file.find("contents");
  if (!stored || stored->dtype != DType::I64 || stored->shape.size() != 1 || stored->shape[0] < 1 ||
      stored->shape[0] % cache::kBlockTokens != 0)
    fail(where, "tensor 'contents' is missing or holds no whole blocks of {} positions", cache::kBlockTokens);
  std::vector<uint64_t> contents(static_cast<size_t>(stored->shape[0]));
  std::memcpy(contents.data(), stored->bytes.data(), stored->bytes.size());

  // Everything is checked before a block is taken: a block that is known must be right.
  const auto total = std::ssize(contents);
  const int64_t chunk = blocks_.shape().chunk_tokens;
  const int64_t chunk_base = chunk > 0 ? total / chunk * chunk / cache::kBlockTokens * cache::kBlockTokens : 0;
  std::vector<const io::TensorView*> keys, values;
  for (int layer = 0; layer < pages_.num_layers(); ++layer) {
    const int64_t count = (total - (pages_.chunked(layer) ? chunk_base : 0)) / cache::kBlockTokens;
    const std::vector<int64_t> shape = {count, pages_.block_bytes(layer, 0).keys.numel()};
    keys.push_back(count == 0 ? nullptr : &tensor_of(file, layer_name(layer, "keys"), DType::U8, shape, where));
    values.push_back(count == 0 ? nullptr : &tensor_of(file, layer_name(layer, "values"), DType::U8, shape, where));
  }
  cache::SequenceBlocks held;
  const auto fills = blocks_.restore(held, contents);
  if (!fills)
    fail(where, "holds {} positions, and the cache has no room for them; --cache-memory makes it larger", total);
  const auto fill = [](const at::Tensor& to, const io::TensorView& from, int64_t index) {
    to.copy_(at::from_blob(const_cast<std::byte*>(from.bytes.data()) + index * to.numel(), {to.numel()}, at::kByte));
  };
  for (const cache::BlockFill& one : *fills)
    for (int layer = 0; layer < pages_.num_layers(); ++layer) {
      if (one.chunked != pages_.chunked(layer)) continue;
      const model::PagedCache::BlockBytes to = pages_.block_bytes(layer, one.block);
      fill(to.keys, *keys[static_cast<size_t>(layer)], one.index);
      fill(to.values, *values[static_cast<size_t>(layer)], one.index);
    }
  blocks_.release(held);
  update_stats();
  return total;
}

}  // namespace puna::engine
