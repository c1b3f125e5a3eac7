// Hand-made file images for the parsers' tests: valid by default, and easy to make wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace puna::test {

/// The bytes of `value`, little-endian.
template <typename T>
std::string raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

inline std::span<const std::byte> as_bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

/// A safetensors image of that header and `data_bytes` bytes 0, 1, 2, ...
std::string safetensors_image(std::string_view header, size_t data_bytes);

/// A GGUF string: length, bytes.
std::string gguf_string(std::string_view text);
/// A metadata pair; `payload` is the value's bytes.
std::string gguf_pair(std::string_view key, uint32_t type, std::string_view payload);
/// A tensor's row of the table; extents innermost first.
std::string gguf_tensor(std::string_view name, std::vector<uint64_t> extents, uint32_t type, uint64_t offset);
/// A file of these parts, padded to 32 bytes before `data_bytes` bytes 0, 1, 2, ...
std::string gguf_image(const std::vector<std::string>& pairs, const std::vector<std::string>& tensors,
                       size_t data_bytes, uint32_t version = 3);

/// A zip of stored entries.
std::string zip_image(const std::vector<std::pair<std::string, std::string>>& entries);

/// zip_image of "x/data.pkl" and one storage "x/data/0" of `storage_bytes` bytes 0, 1, 2, ...
std::string pth_image(std::string_view pickle, size_t storage_bytes);

/// The pickle of {name: F32 tensor} over storage 0; the numbers as the pickle states them.
std::string tensor_pickle(std::string_view name, int32_t numel, int32_t offset, std::vector<int32_t> shape,
                          std::vector<int32_t> strides);

}  // namespace puna::test
