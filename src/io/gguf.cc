#include "io/gguf.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/checked.h"
#include "base/error.h"
#include "io/byte_reader.h"
#include "io/file.h"
#include "io/text.h"

namespace puna::io {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr int kMaxArrayDepth = 4;
constexpr uint32_t kMaxDims = 4;
constexpr uint64_t kMaxKeyBytes = 65'535;
constexpr uint64_t kMaxAlignment = 1 << 20;
// A byte of a u8 array becomes a Json value, so metadata needs a limit of its own beside the file's size.
constexpr uint64_t kMaxMetadataValues = 1 << 23;
constexpr uint64_t kMaxMetadataTextBytes = 512 << 20;
constexpr uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;  // an entry with an empty name and no extents
constexpr uint64_t kMinKeyBytes = 8 + 4 + 1;

// ggml's numbers for metadata types; kMinBytes is what one value takes at least.
enum ValueType : uint32_t { kU8, kI8, kU16, kI16, kU32, kI32, kF32, kBool, kString, kArray, kU64, kI64, kF64 };
constexpr std::array<uint64_t, 13> kMinBytes = {1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8};

struct GgmlType {
  uint32_t id;
  std::string_view name;
  std::optional<DType> dtype;
};

constexpr GgmlType kTypes[] = {
    {0, "F32", DType::F32},       {1, "F16", DType::F16},        {2, "Q4_0", DType::Q4_0},
    {3, "Q4_1", std::nullopt},    {6, "Q5_0", std::nullopt},     {7, "Q5_1", std::nullopt},
    {8, "Q8_0", DType::Q8_0},     {9, "Q8_1", std::nullopt},     {10, "Q2_K", std::nullopt},
    {11, "Q3_K", std::nullopt},   {12, "Q4_K", DType::Q4_K},     {13, "Q5_K", DType::Q5_K},
    {14, "Q6_K", DType::Q6_K},    {15, "Q8_K", std::nullopt},    {16, "IQ2_XXS", std::nullopt},
    {17, "IQ2_XS", std::nullopt}, {18, "IQ3_XXS", std::nullopt}, {19, "IQ1_S", std::nullopt},
    {20, "IQ4_NL", std::nullopt}, {21, "IQ3_S", std::nullopt},   {22, "IQ2_S", std::nullopt},
    {23, "IQ4_XS", std::nullopt}, {24, "I8", DType::I8},         {25, "I16", DType::I16},
    {26, "I32", DType::I32},      {27, "I64", DType::I64},       {28, "F64", DType::F64},
    {29, "IQ1_M", std::nullopt},  {30, "BF16", DType::BF16},     {34, "TQ1_0", std::nullopt},
    {35, "TQ2_0", std::nullopt},  {39, "MXFP4", std::nullopt},
};

struct Entry {
  TensorView tensor;
  uint64_t offset;
};

class GgufParser {
 public:
  GgufParser(std::span<const std::byte> bytes, std::string_view where) : bytes_(bytes), reader_(bytes, where) {}

  GgufFile parse(const std::shared_ptr<const void>& owner) {
    read_header();
    GgufFile file;
    file.metadata = read_metadata();
    refuse_split(file.metadata);
    std::vector<Entry> entries = read_table();
    place(entries, alignment(file.metadata));
    file.tensors.reserve(entries.size());
    for (Entry& entry : entries) {
      entry.tensor.owner = owner;
      file.tensors.add(std::move(entry.tensor), reader_.where());
    }
    return file;
  }

 private:
  const std::string& where() const { return reader_.where(); }

  void read_header() {
    if (reader_.text(4, "the magic") != kMagic) fail(where(), "does not begin with 'GGUF'; is this a GGUF file?");
    const auto version = reader_.read<uint32_t>("the version");
    if (version == 0x02000000 || version == 0x03000000)
      fail(where(), "is a big-endian GGUF file; convert the model again for a little-endian machine");
    if (version != 2 && version != 3)
      fail(where(), "is GGUF version {}, versions 2 and 3 are supported; convert the model again", version);
    num_tensors_ = reader_.read<uint64_t>("the number of tensors");
    num_keys_ = reader_.read<uint64_t>("the number of metadata keys");
    if (num_tensors_ > reader_.remaining() / kMinTensorBytes || num_keys_ > reader_.remaining() / kMinKeyBytes)
      fail(where(), "truncated: claims {} tensors and {} metadata keys in {} bytes; is the download complete?",
           num_tensors_, num_keys_, bytes_.size());
  }

  // A string as it is in the file; `limit` on its bytes.
  std::string_view text(std::string_view field, uint64_t limit) {
    const auto size = reader_.read<uint64_t>(field);
    if (size > limit) fail(where(), "{} has {} bytes, more than the limit of {}", printable(field), size, limit);
    const std::string_view value = reader_.text(size, field);
    if (!is_valid_utf8(value)) fail(where(), "{} '{}' is not UTF-8", printable(field), printable(value));
    return value;
  }

  Json read_metadata() {
    Json metadata = Json::object();
    for (uint64_t i = 0; i < num_keys_; ++i) {
      key_ = text("a metadata key", kMaxKeyBytes);
      if (metadata.contains(key_)) fail(where(), "the metadata key '{}' is there twice", printable(key_));
      const auto type = reader_.read<uint32_t>("a metadata type");
      metadata[key_] = read_value(type, 0);
    }
    return metadata;
  }

  Json read_value(uint32_t type, int depth) {
    if (++num_values_ > kMaxMetadataValues) fail(where(), "has over {} metadata values", kMaxMetadataValues);
    switch (type) {
      case kU8:
        return reader_.read<uint8_t>(key_);
      case kI8:
        return reader_.read<int8_t>(key_);
      case kU16:
        return reader_.read<uint16_t>(key_);
      case kI16:
        return reader_.read<int16_t>(key_);
      case kU32:
        return reader_.read<uint32_t>(key_);
      case kI32:
        return reader_.read<int32_t>(key_);
      case kF32:
        return reader_.read<float>(key_);
      case kBool:
        return read_bool();
      case kString:
        return read_string();
      case kArray:
        return read_array(depth + 1);
      case kU64:
        return reader_.read<uint64_t>(key_);
      case kI64:
        return reader_.read<int64_t>(key_);
      case kF64:
        return reader_.read<double>(key_);
      default:
        fail(where(), "the metadata key '{}' has the unknown type {}", printable(key_), type);
    }
  }

  Json read_bool() {
    const auto value = reader_.read<uint8_t>(key_);
    if (value > 1) fail(where(), "the boolean '{}' is {}, expected 0 or 1", printable(key_), value);
    return value == 1;
  }

  Json read_string() {
    const std::string_view value = text(key_, kMaxMetadataTextBytes);
    text_bytes_ += value.size();
    if (text_bytes_ > kMaxMetadataTextBytes)
      fail(where(), "has over {} bytes of metadata strings", kMaxMetadataTextBytes);
    return value;
  }

  Json read_array(int depth) {
    if (depth > kMaxArrayDepth)
      fail(where(), "the metadata key '{}' nests arrays deeper than {}", printable(key_), kMaxArrayDepth);
    const auto type = reader_.read<uint32_t>(key_);
    const auto count = reader_.read<uint64_t>(key_);
    if (type >= kMinBytes.size())
      fail(where(), "the metadata array '{}' has the unknown type {}", printable(key_), type);
    if (count > reader_.remaining() / kMinBytes[type])
      fail(where(), "truncated: the metadata array '{}' claims {} values, {} bytes are left; is the download complete?",
           printable(key_), count, reader_.remaining());
    if (count > kMaxMetadataValues - num_values_)
      fail(where(), "the metadata array '{}' has {} values, more than the limit of {}", printable(key_), count,
           kMaxMetadataValues);
    Json array = Json::array();
    auto& values = array.get_ref<Json::array_t&>();
    values.reserve(count);
    for (uint64_t i = 0; i < count; ++i) values.push_back(read_value(type, depth));
    return array;
  }

  void refuse_split(const Json& metadata) const {
    const auto count = metadata.find("split.count");
    if (count != metadata.end() && count->is_number() && *count > 1)
      fail(where(), "is one of {} parts of a split GGUF; join them with 'llama-gguf-split --merge FIRST_PART OUT.gguf'",
           count->dump());
  }

  uint64_t alignment(const Json& metadata) const {
    const auto found = metadata.find("general.alignment");
    if (found == metadata.end()) return 32;
    const uint64_t value = found->is_number_unsigned() ? found->get<uint64_t>() : 0;
    if (!std::has_single_bit(value) || value > kMaxAlignment)
      fail(where(), "general.alignment is {}, expected a power of two up to {}", printable(found->dump()),
           kMaxAlignment);
    return value;
  }

  std::vector<Entry> read_table() {
    std::vector<Entry> entries;
    entries.reserve(num_tensors_);
    for (uint64_t i = 0; i < num_tensors_; ++i) entries.push_back(read_entry());
    return entries;
  }

  Entry read_entry() {
    Entry entry = {};
    TensorView& tensor = entry.tensor;
    tensor.name = text("a tensor's name", kMaxKeyBytes);
    const auto dims = reader_.read<uint32_t>("a tensor's number of dimensions");
    if (dims > kMaxDims)
      fail(where(), "tensor '{}' has {} dimensions, at most {} are possible", printable(tensor.name), dims, kMaxDims);
    tensor.shape.resize(dims);
    for (uint32_t d = dims; d-- > 0;) tensor.shape[d] = reader_.read<int64_t>("a tensor's extent");
    tensor.dtype = known_type(reader_.read<uint32_t>("a tensor's type"), tensor.name);
    entry.offset = reader_.read<uint64_t>("a tensor's offset");
    return entry;
  }

  DType known_type(uint32_t id, std::string_view name) const {
    const auto* type = std::ranges::find(kTypes, id, &GgmlType::id);
    if (type == std::end(kTypes) || !type->dtype)
      fail(where(),
           "tensor '{}' has the type {}; supported are F64 F32 F16 BF16 I8 I16 I32 I64 Q4_0 Q8_0 Q4_K Q5_K Q6_K: "
           "quantise the model to one of these",
           printable(name), type == std::end(kTypes) ? std::to_string(id) : std::string(type->name));
    return *type->dtype;
  }

  // Gives every tensor its bytes; tensors may not share any.
  void place(std::vector<Entry>& entries, uint64_t alignment) const {
    if (entries.empty()) return;
    const uint64_t start = (reader_.position() + alignment - 1) / alignment * alignment;
    if (start > bytes_.size()) fail(where(), "truncated: ends before the tensors' data; is the download complete?");
    const auto data = bytes_.subspan(start);
    std::vector<const Entry*> order;
    order.reserve(entries.size());
    for (Entry& entry : entries) {
      entry.tensor.bytes = checked_bytes(entry, data, alignment);
      if (!entry.tensor.bytes.empty()) order.push_back(&entry);
    }
    std::ranges::sort(order, {}, &Entry::offset);
    for (size_t i = 1; i < order.size(); ++i)
      if (order[i]->offset < order[i - 1]->offset + order[i - 1]->tensor.bytes.size())
        fail(where(), "the tensors '{}' and '{}' overlap at byte {} of the data", printable(order[i - 1]->tensor.name),
             printable(order[i]->tensor.name), order[i]->offset);
  }

  std::span<const std::byte> checked_bytes(const Entry& entry, std::span<const std::byte> data,
                                           uint64_t alignment) const {
    const TensorView& tensor = entry.tensor;
    const std::string name = printable(tensor.name);
    const auto numel = checked_numel(tensor.shape);
    const int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
    if (numel && row % dtype_info(tensor.dtype).block_elements != 0)
      fail(where(), "tensor '{}' {} {} has rows that are no whole number of blocks of {}", name,
           dtype_name(tensor.dtype), shape_text(tensor.shape), dtype_info(tensor.dtype).block_elements);
    const auto needed = numel ? dtype_bytes(tensor.dtype, *numel) : std::nullopt;
    if (!needed)
      fail(where(), "the size of tensor '{}' {} {} is negative or exceeds 2^63 bytes", name, dtype_name(tensor.dtype),
           shape_text(tensor.shape));
    if (entry.offset % alignment != 0)
      fail(where(), "tensor '{}' begins at byte {} of the data, no multiple of the alignment {}", name, entry.offset,
           alignment);
    const auto size = static_cast<uint64_t>(*needed);
    if (entry.offset > data.size() || size > data.size() - entry.offset)
      fail(where(),
           "truncated: tensor '{}' needs {} bytes at byte {} of the data, there are {}; is the download complete?",
           name, size, entry.offset, data.size());
    return data.subspan(entry.offset, size);
  }

  std::span<const std::byte> bytes_;
  ByteReader reader_;
  uint64_t num_tensors_ = 0, num_keys_ = 0;
  uint64_t num_values_ = 0, text_bytes_ = 0;
  std::string key_;
};

}  // namespace

GgufFile parse_gguf(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, std::string_view where) {
  return GgufParser(bytes, where).parse(owner);
}

GgufFile open_gguf(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse_gguf(file->bytes(), file, path.string());
}

}  // namespace puna::io
