#include "io/gguf_write.h"

#include <array>
#include <string_view>
#include <type_traits>

#include "base/checked.h"
#include "base/error.h"
#include "io/text.h"

namespace puna::io {
namespace {

constexpr int64_t kAlignment = 32;
constexpr size_t kMaxNameBytes = 63;  // llama.cpp's limit
constexpr size_t kMaxDims = 4;

// ggml's numbers for metadata types.
enum ValueType : uint32_t { kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9 };

struct GgmlType {
  DType dtype;
  uint32_t id;
};
constexpr GgmlType kTypes[] = {{DType::F32, 0},  {DType::F16, 1},   {DType::Q4_0, 2},
                               {DType::Q8_0, 8}, {DType::Q4_K, 12}, {DType::BF16, 30}};

template <typename T>
void put(std::string& out, T value) {
  static_assert(std::is_arithmetic_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void put_text(std::string& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out += text;
}

struct PutValue {
  std::string& out;
  void operator()(bool value) const { put<uint32_t>(out, kBool), put<uint8_t>(out, value); }
  void operator()(uint32_t value) const { put<uint32_t>(out, kU32), put(out, value); }
  void operator()(float value) const { put<uint32_t>(out, kF32), put(out, value); }
  void operator()(const std::string& value) const { put<uint32_t>(out, kString), put_text(out, value); }
  void operator()(const std::vector<std::string>& values) const {
    put<uint32_t>(out, kArray), put<uint32_t>(out, kString), put<uint64_t>(out, values.size());
    for (const std::string& value : values) put_text(out, value);
  }
  void operator()(const std::vector<int32_t>& values) const {
    put<uint32_t>(out, kArray), put<uint32_t>(out, kI32), put<uint64_t>(out, values.size());
    for (const int32_t value : values) put(out, value);
  }
};

uint32_t type_id(const TensorSpec& spec, std::string_view where) {
  for (const GgmlType& type : kTypes)
    if (type.dtype == spec.dtype) return type.id;
  fail(where, "tensor '{}' is {}, which is not written as GGUF", printable(spec.name), dtype_name(spec.dtype));
}

int64_t bytes_of(const TensorSpec& spec, std::string_view where) {
  if (spec.name.size() > kMaxNameBytes || spec.shape.empty() || spec.shape.size() > kMaxDims)
    fail(where, "tensor '{}' has a name or shape that GGUF cannot hold", printable(spec.name));
  const auto elements = checked_numel(spec.shape);
  const auto bytes = elements ? dtype_bytes(spec.dtype, *elements) : std::nullopt;
  if (!bytes || spec.shape.back() % dtype_info(spec.dtype).block_elements != 0)
    fail(where, "tensor '{}': rows of {} elements are no whole {} blocks", printable(spec.name), spec.shape.back(),
         dtype_name(spec.dtype));
  return *bytes;
}

int64_t padding(int64_t bytes) { return (kAlignment - bytes % kAlignment) % kAlignment; }

}  // namespace

GgufWriter::GgufWriter(const std::filesystem::path& path, const GgufMetadata& metadata, std::vector<TensorSpec> specs)
    : specs_(std::move(specs)), file_(path) {
  const std::string where = path.string();
  std::string head = "GGUF";
  put<uint32_t>(head, 3);
  put<uint64_t>(head, specs_.size());
  put<uint64_t>(head, metadata.size());
  for (const auto& [key, value] : metadata) {
    put_text(head, key);
    std::visit(PutValue{head}, value);
  }
  uint64_t offset = 0;
  for (const TensorSpec& spec : specs_) {
    bytes_.push_back(bytes_of(spec, where));
    put_text(head, spec.name);
    put<uint32_t>(head, static_cast<uint32_t>(spec.shape.size()));
    for (size_t i = spec.shape.size(); i-- > 0;) put<uint64_t>(head, static_cast<uint64_t>(spec.shape[i]));
    put<uint32_t>(head, type_id(spec, where));
    put<uint64_t>(head, offset);
    offset += static_cast<uint64_t>(bytes_.back() + padding(bytes_.back()));
  }
  head.append(static_cast<size_t>(padding(static_cast<int64_t>(head.size()))), '\0');
  file_.write(head);
}

void GgufWriter::write(std::span<const std::byte> bytes) {
  PUNA_CHECK(next_ < specs_.size(), "{} tensors were announced, one more is written", specs_.size());
  written_ += static_cast<int64_t>(bytes.size());
  PUNA_CHECK(written_ <= bytes_[next_], "tensor '{}' has {} bytes", specs_[next_].name, bytes_[next_]);
  file_.write(bytes);
  if (written_ == bytes_[next_]) pad_to_next();
}

void GgufWriter::pad_to_next() {
  constexpr std::array<std::byte, kAlignment> kZeros = {};
  file_.write(std::span(kZeros).first(static_cast<size_t>(padding(written_))));
  ++next_, written_ = 0;
}

void GgufWriter::commit() {
  PUNA_CHECK(next_ == specs_.size(), "{} tensors were announced, {} written", specs_.size(), next_);
  file_.commit();
}

}  // namespace puna::io
