#include "engine/logits_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "io/write_failure.h"

namespace puna::engine::internal {

LogitsStore::LogitsStore(std::filesystem::path scratch, int64_t memory_bytes)
    : scratch_(std::move(scratch)), memory_left_(memory_bytes) {}

void LogitsStore::add(const at::Tensor& logits) {
  const at::Tensor narrow = logits.to(at::kBFloat16);
  const at::Tensor kept =
      at::equal(narrow.to(at::kFloat), logits) ? narrow : logits.to(at::kFloat).contiguous().clone();
  Piece piece{{}, kept.scalar_type(), kept.sizes().vec(), file_bytes_, static_cast<int64_t>(kept.nbytes())};
  if (piece.bytes <= memory_left_) {
    memory_left_ -= piece.bytes;
    piece.values = kept;
  } else {
    memory_left_ = 0;
    write(kept, piece);
  }
  pieces_.push_back(std::move(piece));
}

void LogitsStore::write(const at::Tensor& values, Piece& piece) {
  if (file_.get() < 0) file_ = io::Descriptor(open(scratch_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (file_.get() < 0)
    fail(scratch_.string(), "cannot hold a temporary file: {}", std::generic_category().message(errno));
  const auto* bytes = static_cast<const std::byte*>(values.const_data_ptr());
  for (int64_t done = 0; done < piece.bytes;) {
    const ssize_t wrote =
        pwrite(file_.get(), bytes + done, static_cast<size_t>(piece.bytes - done), piece.offset + done);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) fail(scratch_.string(), "logits cannot be kept here: {}", io::write_failure(errno));
    done += wrote;
  }
  file_bytes_ += piece.bytes;
}

at::Tensor LogitsStore::next() {
  if (next_ == pieces_.size()) return {};
  Piece& piece = pieces_[next_++];
  at::Tensor values = std::exchange(piece.values, {});
  if (values.defined()) return values.to(at::kFloat);
  values = at::empty(piece.shape, piece.dtype);
  auto* bytes = static_cast<std::byte*>(values.mutable_data_ptr());
  for (int64_t done = 0; done < piece.bytes;) {
    const ssize_t got = pread(file_.get(), bytes + done, static_cast<size_t>(piece.bytes - done), piece.offset + done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) fail(scratch_.string(), "logits that were kept here cannot be read again");
    done += got;
  }
  return values.to(at::kFloat);
}

}  // namespace puna::engine::internal
