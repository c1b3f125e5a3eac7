// Memory for packed weights and workspaces, beyond which a test must not read or write.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

#include "kernels/quantized/matmul.h"

namespace puna::kernels {

/// Aligned bytes that end, but for the alignment, where a page begins that nobody may touch.
class Aligned {
 public:
  explicit Aligned(int64_t bytes) {
    const int64_t page = ::sysconf(_SC_PAGESIZE),
                  rounded = (bytes + kPackedAlignment - 1) / kPackedAlignment * kPackedAlignment;
    const int64_t readable = (rounded + page - 1) / page * page;
    size_ = static_cast<size_t>(readable + page);
    void* pages = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) throw std::bad_alloc();
    pages_ = static_cast<std::byte*>(pages);
    if (::mprotect(pages_ + readable, static_cast<size_t>(page), PROT_NONE) != 0) throw std::bad_alloc();
    at_ = pages_ + readable - rounded;
  }
  ~Aligned() { ::munmap(pages_, size_); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  std::byte* get() { return at_; }

 private:
  std::byte *pages_, *at_;
  size_t size_;
};

}  // namespace puna::kernels
