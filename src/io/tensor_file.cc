#include "io/tensor_file.h"

#include "base/error.h"
#include "io/text.h"

namespace puna::io {
namespace {

// Blocks are read bytewise, so they need no alignment.
size_t alignment_of(DType dtype) {
  return dtype_is_block(dtype) ? 1 : static_cast<size_t>(dtype_info(dtype).block_bytes);
}

}  // namespace

bool is_aligned(const TensorView& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.bytes.data()) % alignment_of(tensor.dtype) == 0;
}

void TensorFile::add(TensorView tensor, std::string_view where) {
  if (!index_.try_emplace(tensor.name, tensors_.size()).second)
    fail(where, "the tensor '{}' is there twice, in one file or in two shards; delete the stale one",
         printable(tensor.name));
  tensors_.push_back(std::move(tensor));
}

void TensorFile::reserve(size_t count) {
  tensors_.reserve(count);
  index_.reserve(count);
}

const TensorView* TensorFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

int64_t TensorFile::total_bytes() const {
  int64_t total = 0;
  for (const TensorView& tensor : tensors_) total += static_cast<int64_t>(tensor.bytes.size());
  return total;
}

}  // namespace puna::io
