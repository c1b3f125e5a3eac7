#include "tests/io/builders.h"

#include <initializer_list>

namespace puna::test {
namespace {

std::string counting(size_t size) {
  std::string bytes(size, '\0');
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i);
  return bytes;
}

std::string join(std::initializer_list<std::string_view> parts) {
  std::string all;
  for (std::string_view part : parts) all += part;
  return all;
}

// What the local and the central header share.
std::string zip_fields(const std::string& name, const std::string& data) {
  const auto size = static_cast<uint32_t>(data.size());
  return join({std::string(12, '\0'), raw(size), raw(size), raw(static_cast<uint16_t>(name.size())), raw<uint16_t>(0)});
}

std::string int_tuple(const std::vector<int32_t>& numbers) {
  std::string tuple(1, '(');
  for (int32_t number : numbers) tuple += join({"J", raw(number)});
  return join({tuple, "t"});
}

std::string pickled_text(std::string_view text) { return join({"X", raw(static_cast<uint32_t>(text.size())), text}); }

}  // namespace

std::string safetensors_image(std::string_view header, size_t data_bytes) {
  return join({raw(static_cast<uint64_t>(header.size())), header, counting(data_bytes)});
}

std::string gguf_string(std::string_view text) { return join({raw(static_cast<uint64_t>(text.size())), text}); }

std::string gguf_pair(std::string_view key, uint32_t type, std::string_view payload) {
  return join({gguf_string(key), raw(type), payload});
}

std::string gguf_tensor(std::string_view name, std::vector<uint64_t> extents, uint32_t type, uint64_t offset) {
  std::string row = join({gguf_string(name), raw(static_cast<uint32_t>(extents.size()))});
  for (uint64_t extent : extents) row += raw(extent);
  return join({row, raw(type), raw(offset)});
}

std::string gguf_image(const std::vector<std::string>& pairs, const std::vector<std::string>& tensors,
                       size_t data_bytes, uint32_t version) {
  std::string image = join(
      {"GGUF", raw(version), raw(static_cast<uint64_t>(tensors.size())), raw(static_cast<uint64_t>(pairs.size()))});
  for (const std::string& pair : pairs) image += pair;
  for (const std::string& tensor : tensors) image += tensor;
  image.resize((image.size() + 31) / 32 * 32);
  return image + counting(data_bytes);
}

std::string zip_image(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string image, directory;
  for (const auto& [name, data] : entries) {
    directory += join({"PK\x01\x02", raw<uint16_t>(20), raw<uint16_t>(20), zip_fields(name, data),
                       std::string(10, '\0'), raw(static_cast<uint32_t>(image.size())), name});
    image += join({"PK\x03\x04", raw<uint16_t>(20), zip_fields(name, data), name, data});
  }
  const auto count = static_cast<uint16_t>(entries.size());
  return join({image, directory, "PK\x05\x06", std::string(4, '\0'), raw(count), raw(count),
               raw(static_cast<uint32_t>(directory.size())), raw(static_cast<uint32_t>(image.size())),
               raw<uint16_t>(0)});
}

std::string pth_image(std::string_view pickle, size_t storage_bytes) {
  return zip_image({{"x/data.pkl", std::string(pickle)}, {"x/data/0", counting(storage_bytes)}});
}

std::string tensor_pickle(std::string_view name, int32_t numel, int32_t offset, std::vector<int32_t> shape,
                          std::vector<int32_t> strides) {
  const std::string storage = join({"(", pickled_text("storage"), "ctorch\nFloatStorage\n", pickled_text("0"),
                                    pickled_text("cpu"), "J", raw(numel), "tQ"});
  return join({"\x80\x02}", pickled_text(name), "ctorch._utils\n_rebuild_tensor_v2\n(", storage, "J", raw(offset),
               int_tuple(shape), int_tuple(strides), "\x89", "ccollections\nOrderedDict\n)R", "tRs."});
}

}  // namespace puna::test
