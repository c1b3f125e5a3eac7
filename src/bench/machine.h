// What this machine can do at most, measured: the bounds that everything else is compared with.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

namespace puna::bench {

/// Least, middle and largest of repeated measurements.
struct Spread {
  double low = 0, middle = 0, high = 0;
  Spread() = default;
  explicit Spread(std::vector<double> values);  // not empty
};

/// Wall time.
double wall_seconds_of(const std::function<void()>& work);
/// Wall time; with one thread its CPU time, so that other work on the machine does not count.
double seconds_of(int64_t threads, const std::function<void()>& work);

/// A buffer beyond any cache to read from.
class ReadProbe {
 public:
  explicit ReadProbe(int64_t bytes = int64_t{512} << 20);
  /// Bytes per second of plain sums over the buffer, in pieces of 1 MiB that threads take in turn: the best of three.
  double measure(int64_t threads) const;

 private:
  struct Free {
    void operator()(std::byte* at) const;
  };
  std::unique_ptr<std::byte, Free> bytes_;
  int64_t size_;
};

/// Bytes per second of plain sums over these bytes, of which a last piece under 1 MiB is left out.
double read_bandwidth(const std::byte* bytes, int64_t size, int64_t threads);

/// INT8 operations (multiplications and additions) per second of the best dot instruction alone, without loads; the
/// best of three.
double int8_peak(int64_t threads);

/// Operations per second of LibTorch's BF16 product of two square matrices of side 2,048, the best of three.
double bf16_product_rate();

/// Bytes per second of reading the file past the page cache (O_DIRECT), 1 MiB at a time, from 8 threads; at most
/// `max_bytes` of it, spread over the whole. 0 when the file system has no O_DIRECT. Throws Error when it cannot be
/// read.
double disk_bandwidth(const std::filesystem::path& file, int64_t max_bytes);

}  // namespace puna::bench
