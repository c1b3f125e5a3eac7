// A bounds-checked cursor over little-endian bytes from outside.
#pragma once

#include <bit>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"
#include "io/text.h"

namespace puna::io {

static_assert(std::endian::native == std::endian::little, "the file formats here are little-endian");

/// Reading past the end is an Error that names `where`, the field and the byte.
class ByteReader {
 public:
  ByteReader(std::span<const std::byte> bytes, std::string_view where, size_t position = 0)
      : bytes_(bytes), where_(where), position_(position) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }
  const std::string& where() const { return where_; }

  template <typename T>
  T read(std::string_view field) {
    static_assert(std::is_arithmetic_v<T>);
    T value;
    std::memcpy(&value, take(sizeof(T), field).data(), sizeof(T));
    return value;
  }

  std::string_view text(uint64_t size, std::string_view field) {
    const auto bytes = take(size, field);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  std::span<const std::byte> take(uint64_t size, std::string_view field) {
    if (size > remaining())
      fail(where_, "truncated: {} at byte {} needs {} bytes, {} are left; is the download complete?", printable(field),
           position_, size, remaining());
    const auto part = bytes_.subspan(position_, size);
    position_ += size;
    return part;
  }

 private:
  std::span<const std::byte> bytes_;
  std::string where_;
  size_t position_;
};

}  // namespace puna::io
