#include "io/pth.h"

#include <cstring>
#include <unordered_map>

#include "base/checked.h"
#include "base/error.h"
#include "io/file.h"
#include "io/pickle.h"
#include "io/text.h"
#include "io/zip.h"

namespace puna::io {
namespace {

using Bytes = std::span<const std::byte>;
using Records = std::unordered_map<std::string_view, Bytes>;

constexpr std::string_view kPickleName = "data.pkl";

std::string_view as_text(Bytes bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

void refuse_other_formats(Bytes bytes, std::string_view where) {
  const std::string_view head = as_text(bytes.first(std::min<size_t>(bytes.size(), 4)));
  if (head.starts_with("PK\x03\x04")) return;
  if (head.starts_with("\x80"))
    fail(where, "is in the legacy format of torch.save; load it with torch and save it again (torch 1.6 or later)");
  fail(where, "is no torch.save archive (it does not begin with 'PK'); is the download complete?");
}

// The records below the archive's one top directory, by their name within it.
Records records_of(Bytes bytes, std::string_view where) {
  const std::vector<ZipEntry> entries = read_stored_zip(bytes, where);
  std::string_view top;
  for (const ZipEntry& entry : entries) {
    const size_t slash = entry.name.find('/');
    if (slash == std::string_view::npos || entry.name.substr(slash + 1) != kPickleName) continue;
    if (!top.empty()) fail(where, "has two pickles, in '{}' and '{}'", printable(top), printable(entry.name));
    top = entry.name.substr(0, slash + 1);
  }
  if (top.empty()) fail(where, "has no data.pkl; is this a torch.save archive?");
  Records records;
  for (const ZipEntry& entry : entries)
    if (entry.name.starts_with(top)) records.emplace(entry.name.substr(top.size()), entry.data);
  if (records.contains("constants.pkl")) fail(where, "is a TorchScript program, expected a state dict of tensors");
  if (const auto order = records.find("byteorder"); order != records.end() && as_text(order->second) != "little")
    fail(where, "has the byte order '{}', only 'little' is supported", printable(as_text(order->second)));
  return records;
}

// True when the strides are those of a dense row-major tensor; extents of 1 may have any.
bool is_contiguous(const PickledTensor& tensor) {
  int64_t expected = 1;
  for (size_t d = tensor.shape.size(); d-- > 0;) {
    if (tensor.shape[d] != 1 && tensor.strides[d] != expected) return false;
    expected *= tensor.shape[d];  // at most the checked number of elements
  }
  return true;
}

// One past the last element that the tensor touches; nullopt on overflow.
std::optional<int64_t> end_element(const PickledTensor& tensor) {
  std::optional<int64_t> end = checked_add(tensor.offset, 1);
  for (size_t d = 0; end && d < tensor.shape.size(); ++d) {
    const auto reach = checked_mul(tensor.shape[d] - 1, tensor.strides[d]);
    end = reach ? checked_add(*end, *reach) : std::nullopt;
  }
  return end;
}

class PthParser {
 public:
  PthParser(Bytes bytes, std::shared_ptr<const void> owner, std::string_view where)
      : bytes_(bytes), owner_(std::move(owner)), where_(where), copy_budget_(static_cast<int64_t>(bytes.size())) {}

  TensorFile parse() {
    refuse_other_formats(bytes_, where_);
    const Records records = records_of(bytes_, where_);
    TensorFile file;
    const auto tensors = unpickle_tensors(records.at(kPickleName), where_);
    file.reserve(tensors.size());
    for (const PickledTensor& tensor : tensors) file.add(view(tensor, storage_of(tensor, records)), where_);
    return file;
  }

 private:
  Bytes storage_of(const PickledTensor& tensor, const Records& records) const {
    const PickledStorage& storage = tensor.storage;
    const auto record = records.find("data/" + std::string(storage.key));
    if (record == records.end())
      fail(where_, "tensor '{}' wants the storage '{}', which is not in the archive", printable(tensor.name),
           printable(storage.key));
    const auto needed = storage.dtype ? dtype_bytes(*storage.dtype, storage.numel) : storage.numel;
    if (!needed || static_cast<uint64_t>(*needed) != record->second.size())
      fail(where_, "the storage '{}' should have {} elements of {}, has {} bytes", printable(storage.key),
           storage.numel, storage.dtype ? dtype_name(*storage.dtype) : "a byte", record->second.size());
    return record->second;
  }

  TensorView view(const PickledTensor& tensor, Bytes storage) {
    const int64_t item = dtype_info(tensor.dtype).block_bytes;
    const int64_t available = static_cast<int64_t>(storage.size()) / item;
    const auto numel = checked_numel(tensor.shape);
    const auto end = numel == 0 ? tensor.offset : end_element(tensor);
    if (!numel || !end || *end > available || *numel > available)
      fail(where_, "tensor '{}' {} (offset {}, strides {}) does not fit its storage of {} elements",
           printable(tensor.name), shape_text(tensor.shape), tensor.offset, shape_text(tensor.strides), available);
    TensorView result = {std::string(tensor.name), tensor.dtype, tensor.shape, {}, owner_};
    if (*numel == 0) return result;
    if (is_contiguous(tensor))
      result.bytes = storage.subspan(static_cast<size_t>(tensor.offset * item), static_cast<size_t>(*numel * item));
    else
      copy_strided(tensor, storage, *numel, result);
    return result;
  }

  // Many views of one storage could ask for more memory than the file has bytes, hence the budget.
  void copy_strided(const PickledTensor& tensor, Bytes storage, int64_t numel, TensorView& result) {
    const auto item = static_cast<size_t>(dtype_info(tensor.dtype).block_bytes);
    copy_budget_ -= numel * static_cast<int64_t>(item);
    if (copy_budget_ < 0)
      fail(where_, "its non-contiguous tensors need more memory than the file has bytes; save contiguous ones");
    const auto copy = std::make_shared<std::vector<std::byte>>(static_cast<size_t>(numel) * item);
    std::vector<int64_t> strides = tensor.strides;  // those of extents of 1 mean nothing and may be absurd
    for (size_t d = 0; d < strides.size(); ++d)
      if (tensor.shape[d] == 1) strides[d] = 0;
    std::vector<int64_t> index(tensor.shape.size(), 0);
    int64_t element = tensor.offset;
    for (size_t i = 0; i < static_cast<size_t>(numel); ++i) {
      std::memcpy(copy->data() + i * item, storage.data() + static_cast<size_t>(element) * item, item);
      for (size_t d = index.size(); d-- > 0;) {
        element += strides[d];
        if (++index[d] < tensor.shape[d]) break;
        element -= strides[d] * tensor.shape[d];
        index[d] = 0;
      }
    }
    result.bytes = *copy;
    result.owner = copy;
  }

  Bytes bytes_;
  std::shared_ptr<const void> owner_;
  std::string where_;
  int64_t copy_budget_;
};

}  // namespace

TensorFile parse_pth(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, std::string_view where) {
  return PthParser(bytes, std::move(owner), where).parse();
}

TensorFile open_pth(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse_pth(file->bytes(), file, path.string());
}

}  // namespace puna::io
