#include "io/safetensors.h"

#include <algorithm>
#include <set>

#include "base/checked.h"
#include "base/error.h"
#include "base/json.h"
#include "io/byte_reader.h"
#include "io/file.h"
#include "io/safetensors_header.h"
#include "io/text.h"

namespace puna::io {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100'000'000;
constexpr int64_t kMaxIndexBytes = 64 << 20;

// The format wants the tensors, sorted by offset, to tile the data exactly.
void check_tiling(const std::vector<HeaderTensor>& tensors, int64_t data_bytes, std::string_view where) {
  std::vector<const HeaderTensor*> order;
  order.reserve(tensors.size());
  for (const HeaderTensor& tensor : tensors) order.push_back(&tensor);
  std::sort(order.begin(), order.end(), [](const HeaderTensor* a, const HeaderTensor* b) {
    return std::pair(a->begin, a->end) < std::pair(b->begin, b->end);
  });
  int64_t covered = 0;
  const HeaderTensor* previous = nullptr;
  for (const HeaderTensor* tensor : order) {
    if (tensor->begin < covered)
      fail(where, "the tensors '{}' and '{}' overlap at byte {} of the data", printable(previous->name),
           printable(tensor->name), tensor->begin);
    if (tensor->begin > covered)
      fail(where, "the bytes {} to {} of the data, before '{}', belong to no tensor; the format forbids holes", covered,
           tensor->begin, printable(tensor->name));
    covered = tensor->end;
    previous = tensor;
  }
  if (covered != data_bytes)
    fail(where, "{} bytes follow the last tensor; the format forbids holes", data_bytes - covered);
}

// Size and place of one tensor, checked; its bytes.
std::span<const std::byte> checked_bytes(const HeaderTensor& tensor, std::span<const std::byte> data,
                                         std::string_view where) {
  const auto available = static_cast<int64_t>(data.size());
  const auto numel = checked_numel(tensor.shape);
  const auto needed = numel ? dtype_bytes(tensor.dtype, *numel) : std::nullopt;
  if (!needed)
    fail(where, "the size of tensor '{}' {} {} exceeds 2^63 bytes", printable(tensor.name), dtype_name(tensor.dtype),
         shape_text(tensor.shape));
  if (tensor.begin > tensor.end)
    fail(where, "tensor '{}' has data_offsets that end ({}) before they begin ({})", printable(tensor.name), tensor.end,
         tensor.begin);
  if (tensor.end - tensor.begin != *needed)
    fail(where, "tensor '{}' {} {} needs {} bytes, its data_offsets give it {}", printable(tensor.name),
         dtype_name(tensor.dtype), shape_text(tensor.shape), *needed, tensor.end - tensor.begin);
  if (tensor.end > available)
    fail(where, "truncated: tensor '{}' ends at byte {} of the data, there are {}; is the download complete?",
         printable(tensor.name), tensor.end, available);
  return data.subspan(static_cast<size_t>(tensor.begin), static_cast<size_t>(*needed));
}

// The index must name plain files beside it: a name with a path could read anything.
void check_shard_name(const std::string& shard, std::string_view where) {
  if (shard.empty() || shard == "." || shard == ".." || shard.find_first_of(std::string_view("/\\\0", 3)) != shard.npos)
    fail(where, "the shard name '{}' is refused: it must be a plain file name beside the index", printable(shard));
}

std::map<std::string, std::string> read_weight_map(const std::filesystem::path& path) {
  const Json index = read_json_file(path, kMaxIndexBytes);
  const auto found = index.is_object() ? index.find("weight_map") : index.end();
  if (!index.is_object() || found == index.end() || !found->is_object())
    fail(path.string(), "has no object 'weight_map'; is this a safetensors index?");
  std::map<std::string, std::string> weight_map;
  for (const auto& [name, shard] : found->items()) {
    if (!shard.is_string()) fail(path.string(), "weight_map gives '{}' no file name", printable(name));
    check_shard_name(shard.get_ref<const std::string&>(), path.string());
    weight_map.emplace(name, shard.get_ref<const std::string&>());
  }
  if (weight_map.empty()) fail(path.string(), "weight_map is empty");
  return weight_map;
}

}  // namespace

TensorFile parse_safetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                             std::string_view where) {
  ByteReader reader(bytes, where);
  const auto header_bytes = reader.read<uint64_t>("the header's length");
  if (header_bytes > kMaxHeaderBytes)
    fail(where, "the header's length is {}, more than {}; is this a safetensors file?", header_bytes, kMaxHeaderBytes);
  const std::string_view json = reader.text(header_bytes, "the header");
  TensorFile file;
  std::vector<HeaderTensor> tensors = parse_safetensors_header(json, where, file.metadata);
  const auto data = bytes.subspan(reader.position());
  std::vector<std::span<const std::byte>> parts;
  parts.reserve(tensors.size());
  for (const HeaderTensor& tensor : tensors) parts.push_back(checked_bytes(tensor, data, where));
  check_tiling(tensors, static_cast<int64_t>(data.size()), where);
  file.reserve(tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i)
    file.add({std::move(tensors[i].name), tensors[i].dtype, std::move(tensors[i].shape), parts[i], owner}, where);
  return file;
}

TensorFile open_safetensors(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse_safetensors(file->bytes(), file, path.string());
}

TensorFile open_safetensors_index(const std::filesystem::path& index) {
  const auto weight_map = read_weight_map(index);
  std::set<std::string> shards;
  for (const auto& [name, shard] : weight_map) shards.insert(shard);
  const std::filesystem::path directory = index.parent_path();
  for (const std::string& shard : shards)
    if (!path_exists(directory / shard))
      fail(index.string(), "names the shard '{}', which is not beside it; is the download complete?", printable(shard));

  TensorFile all;
  all.reserve(weight_map.size());
  for (const std::string& shard : shards) {
    const std::string where = (directory / shard).string();
    TensorFile part = open_safetensors(directory / shard);
    if (shard == *shards.begin()) all.metadata = part.metadata;
    for (const TensorView& tensor : part.tensors()) {
      all.add(tensor, where);
      const auto entry = weight_map.find(tensor.name);
      if (entry == weight_map.end())
        fail(where, "holds the tensor '{}', which the index {} does not know", printable(tensor.name),
             index.filename().string());
      if (entry->second != shard)
        fail(where, "holds the tensor '{}', but the index {} says that it is in '{}'", printable(tensor.name),
             index.filename().string(), printable(entry->second));
    }
  }
  for (const auto& [name, shard] : weight_map)
    if (!all.find(name)) fail((directory / shard).string(), "lacks the tensor '{}' of the index", printable(name));
  return all;
}

}  // namespace puna::io
