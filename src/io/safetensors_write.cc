#include <unordered_set>

#include "base/checked.h"
#include "base/error.h"
#include "base/json.h"
#include "io/safetensors.h"
#include "io/text.h"

namespace puna::io {
namespace {

int64_t bytes_of(const TensorSpec& spec, std::string_view where) {
  const auto numel = checked_numel(spec.shape);
  const auto bytes = numel ? dtype_bytes(spec.dtype, *numel) : std::nullopt;
  if (!bytes) fail(where, "tensor '{}' {} cannot be stored", printable(spec.name), shape_text(spec.shape));
  return *bytes;
}

std::string quoted(std::string_view text, std::string_view where) {
  if (!is_valid_utf8(text)) fail(where, "the name or metadata '{}' is not UTF-8", printable(text));
  return Json(text).dump();
}

// Built by hand: the entries keep the order given, which Json's sorted objects would not.
std::string header_json(std::span<const TensorSpec> specs, const std::map<std::string, std::string>& metadata,
                        int64_t alignment, std::string_view where) {
  std::string json = "{";
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata)
      json += fmt::format("{}{}:{}", json.back() == '{' ? "" : ",", quoted(key, where), quoted(value, where));
    json += "}";
  }
  std::unordered_set<std::string_view> names;
  int64_t offset = 0;
  for (const TensorSpec& spec : specs) {
    if (!names.insert(spec.name).second || spec.name == "__metadata__")
      fail(where, "the tensor name '{}' is given twice or reserved", printable(spec.name));
    if (dtype_is_block(spec.dtype))
      fail(where, "tensor '{}' is {}, which safetensors cannot hold", printable(spec.name), dtype_name(spec.dtype));
    const auto end = checked_add(offset, bytes_of(spec, where));
    if (!end) fail(where, "the tensors exceed 2^63 bytes together");
    json += fmt::format("{}{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}}", json.size() == 1 ? "" : ",",
                        quoted(spec.name, where), dtype_name(spec.dtype), Json(spec.shape).dump(), offset, *end);
    offset = *end;
  }
  json += "}";
  constexpr size_t kSizeBytes = 8;  // before the header
  const auto unit = static_cast<size_t>(alignment);
  json.resize((kSizeBytes + json.size() + unit - 1) / unit * unit - kSizeBytes, ' ');
  return json;
}

}  // namespace

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorSpec> specs,
                                     const std::map<std::string, std::string>& metadata, int64_t alignment)
    : where_(path.string()), specs_(std::move(specs)), file_(path) {
  const std::string header = header_json(specs_, metadata, alignment, where_);
  const uint64_t size = header.size();
  file_.write(std::as_bytes(std::span(&size, 1)));
  file_.write(header);
}

void SafetensorsWriter::write(std::span<const std::byte> bytes) {
  PUNA_CHECK(next_ < specs_.size(), "{} tensors were announced, one more is written", specs_.size());
  const TensorSpec& spec = specs_[next_];
  const int64_t needed = bytes_of(spec, where_);
  written_ += static_cast<int64_t>(bytes.size());
  PUNA_CHECK(written_ <= needed, "tensor '{}' needs {} bytes, was given {}", spec.name, needed, written_);
  file_.write(bytes);
  if (written_ == needed) ++next_, written_ = 0;
}

void SafetensorsWriter::commit() {
  PUNA_CHECK(next_ == specs_.size(), "{} tensors were announced, {} written and {} bytes of the next", specs_.size(),
             next_, written_);
  file_.commit();
}

void write_safetensors(const std::filesystem::path& path, std::span<const TensorView> tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const TensorView& tensor : tensors) specs.push_back({tensor.name, tensor.dtype, tensor.shape});
  SafetensorsWriter writer(path, std::move(specs), metadata);
  for (const TensorView& tensor : tensors) writer.write(tensor.bytes);
  writer.commit();
}

}  // namespace puna::io
