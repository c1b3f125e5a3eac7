#include "bench/machine.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <new>
#include <numeric>
#include <thread>

#include "base/error.h"
#include "base/parallel_for.h"
#include "kernels/quantized/isa.h"
#include "kernels/quantized/matmul.h"

namespace puna::bench {
namespace {

constexpr std::align_val_t kAlignment{2 << 20};
constexpr int64_t kDirectBytes = 1 << 20;
constexpr int64_t kDirectReaders = 8;

}  // namespace

Spread::Spread(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  low = values.front(), middle = values[values.size() / 2], high = values.back();
}

namespace {

double seconds_by(clockid_t clock, const std::function<void()>& work) {
  const auto now = [clock] {
    timespec time = {};
    ::clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
  };
  const double start = now();
  work();
  return now() - start;
}

}  // namespace

double wall_seconds_of(const std::function<void()>& work) { return seconds_by(CLOCK_MONOTONIC, work); }

double seconds_of(int64_t threads, const std::function<void()>& work) {
  return threads == 1 ? seconds_by(CLOCK_THREAD_CPUTIME_ID, work) : wall_seconds_of(work);
}

void ReadProbe::Free::operator()(std::byte* at) const { ::operator delete(at, kAlignment); }

ReadProbe::ReadProbe(int64_t bytes)
    : bytes_(static_cast<std::byte*>(::operator new(static_cast<size_t>(bytes), kAlignment))), size_(bytes) {
  ::madvise(bytes_.get(), static_cast<size_t>(bytes), MADV_HUGEPAGE);  // as weights have them
  std::memset(bytes_.get(), 1, static_cast<size_t>(bytes));
}

double ReadProbe::measure(int64_t threads) const {
  double best = 0;
  for (int i = 0; i < 3; ++i) best = std::max(best, read_bandwidth(bytes_.get(), size_, threads));
  return best;
}

double read_bandwidth(const std::byte* bytes, int64_t size, int64_t threads) {
  constexpr int64_t kPiece = int64_t{1} << 20, kAhead = 4096, kLine = 64;
  std::vector<uint64_t> sums(static_cast<size_t>(threads) * 8);
  std::atomic<int64_t> next = 0;
  const int64_t pieces = size / kPiece;
  const double seconds = seconds_of(threads, [&] {
    parallel_for(threads, threads, [&](int64_t t) {
      uint64_t sum[16] = {}, words[16];
      for (int64_t p; (p = next++) < pieces;) {
        const std::byte* from = bytes + p * kPiece;
        for (int64_t i = 0; i < kPiece; i += 2 * kLine) {
          __builtin_prefetch(from + i + kAhead, 0, 2);
          __builtin_prefetch(from + i + kAhead + kLine, 0, 2);
          std::memcpy(words, from + i, sizeof(words));
          for (int j = 0; j < 16; ++j) sum[j] += words[j];
        }
      }
      sums[static_cast<size_t>(t) * 8] = std::accumulate(sum, sum + 16, uint64_t{0});
    });
  });
  volatile uint64_t sink = sums[0];
  (void)sink;
  return static_cast<double>(pieces * kPiece) / seconds;
}

double int8_peak(int64_t threads) {
  std::vector<int64_t> operations(static_cast<size_t>(threads));
  const kernels::Isa isa = kernels::chosen_isa();
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const double seconds = seconds_of(threads, [&] {
      parallel_for(threads, threads,
                   [&](int64_t t) { operations[static_cast<size_t>(t)] = kernels::run_int8_dots(isa, 1'000'000); });
    });
    best = std::max(best,
                    static_cast<double>(std::accumulate(operations.begin(), operations.end(), int64_t{0})) / seconds);
  }
  return best;
}

double bf16_product_rate() {
  constexpr int64_t kSide = 2048;
  const at::Tensor a = at::randn({kSide, kSide}).to(at::kBFloat16), b = at::randn({kSide, kSide}).to(at::kBFloat16);
  double best = 0;
  for (int i = 0; i < 3; ++i) {
    const double seconds = seconds_of(at::get_num_threads(), [&] { at::mm(a, b); });
    best = std::max(best, 2.0 * kSide * kSide * kSide / seconds);
  }
  return best;
}

double disk_bandwidth(const std::filesystem::path& file, int64_t max_bytes) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (fd < 0 && errno == EINVAL) return 0;
  if (fd < 0) fail(file.string(), "cannot be opened: {}", std::strerror(errno));
  const int64_t pieces = ::lseek(fd, 0, SEEK_END) / kDirectBytes,
                step = std::max<int64_t>(1, pieces * kDirectBytes / max_bytes);
  std::atomic<int64_t> next{0}, bytes{0};
  std::atomic<int> error{0};
  const auto start = std::chrono::steady_clock::now();
  std::vector<std::jthread> readers;
  for (int64_t r = 0; r < kDirectReaders; ++r)
    readers.emplace_back([&] {
      const std::unique_ptr<std::byte, void (*)(std::byte*)> buffer(
          static_cast<std::byte*>(::operator new(static_cast<size_t>(kDirectBytes), kAlignment)),
          [](std::byte* at) { ::operator delete(at, kAlignment); });
      for (int64_t i = next++; i * step < pieces && error == 0; i = next++) {
        const ssize_t got = ::pread(fd, buffer.get(), kDirectBytes, i * step * kDirectBytes);
        if (got < 0) error = errno;
        if (got > 0) bytes += got;
      }
    });
  readers.clear();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ::close(fd);
  if (error != 0) fail(file.string(), "cannot be read: {}", std::strerror(error));
  return static_cast<double>(bytes) / seconds;
}

}  // namespace puna::bench
