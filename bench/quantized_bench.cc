// Times the products of packed weights beside the machine's own limits, measured between them:
//   quantized_bench THREADS ROUNDS N K BITS GROUP ROWS...
// BITS may be bf16 or fp8, whose GROUP says nothing. Prints a line per row count: milliseconds (min/median/max), the
// median as GOP/s and as GB/s of packed weights, and its fraction of the peak of INT8 or BF16 dots and of the read
// bandwidth. PUNA_ISA chooses the instruction set.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <memory>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/parallel_for.h"
#include "bench/machine.h"
#include "kernels/quantized/matmul.h"

namespace puna {
namespace {

using bench::read_bandwidth;
using bench::seconds_of;
using bench::Spread;
using kernels::Isa;

// Beyond any cache, so that a product of few rows reads memory: copies of the weight are used in turn.
constexpr int64_t kWorkingSetBytes = int64_t{256} << 20;

struct Free {
  void operator()(std::byte* at) const { ::operator delete (at, std::align_val_t{kernels::kPackedAlignment}); }
};
using Bytes = std::unique_ptr<std::byte, Free>;

Bytes allocate(int64_t bytes) {
  return Bytes(static_cast<std::byte*>(::operator new (bytes, std::align_val_t{kernels::kPackedAlignment})));
}

double dot_peak(const kernels::WeightFormat& format, Isa isa, int64_t threads) {
  const auto run_dots = format.floats ? kernels::run_bf16_dots : kernels::run_int8_dots;
  std::vector<int64_t> operations(threads);
  const double seconds = seconds_of(
      threads, [&] { parallel_for(threads, threads, [&](int64_t t) { operations[t] = run_dots(isa, 1'000'000); }); });
  return static_cast<double>(std::accumulate(operations.begin(), operations.end(), int64_t{0})) / seconds;
}

/// Copies of one random weight, packed.
struct Weights {
  kernels::WeightShape shape;
  int64_t bytes, copies;
  Bytes packed;

  explicit Weights(const kernels::WeightShape& s)
      : shape(s),
        bytes(kernels::packed_layout(s).total_bytes),
        copies(std::max<int64_t>(1, kWorkingSetBytes / bytes)),
        packed(allocate(bytes * copies)) {
    std::mt19937 random(1);
    if (s.format.floats) {
      std::vector<uint16_t> values(s.n * s.k);  // of both types no number is too large: the sign and two bits
      for (uint16_t& value : values) value = static_cast<uint16_t>(random() & 0x8383);
      const std::vector<float> scales(s.n, 0.01f);
      kernels::pack_floats(s, values.data(), s.k, 1, s.format.bits == 8 ? scales.data() : nullptr, packed.get());
    } else {
      std::vector<int8_t> q(s.n * s.k);
      for (int8_t& value : q) value = static_cast<int8_t>(static_cast<int8_t>(random()) >> (8 - s.format.bits));
      const int64_t groups = s.format.channel_scales ? 1 : kernels::packed_layout(s).blocks;
      const std::vector<float> scales(s.n * groups, 0.01f);
      kernels::pack_weights(s, q.data(), scales.data(), nullptr, packed.get());
    }
    for (int64_t i = 1; i < copies; ++i) std::memcpy(packed.get() + i * bytes, packed.get(), bytes);
  }
};

void bench_rows(const Weights& weights, Isa isa, int64_t rows, int64_t threads, int rounds) {
  const kernels::WeightShape& shape = weights.shape;
  const kernels::RowLayout layout = kernels::row_layout(shape.k);
  std::vector<int8_t> q(rows * layout.values);
  std::vector<float> scales(rows * layout.scales), x(rows * shape.k), out(rows * shape.n);
  std::vector<int16_t> sums(rows * layout.sums);
  const std::vector<uint16_t> x_bf16(rows * shape.k, 0x3F80);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 251) - 125;
  const kernels::QuantizedRows quantized = {q.data(), scales.data(), sums.data()};
  const Bytes workspace = allocate(kernels::matmul_workspace_bytes(shape, rows));
  const int64_t offsets[] = {0, rows};
  const kernels::ParallelFor parallel = [&](int64_t count, const std::function<void(int64_t)>& work) {
    parallel_for(count, threads, work);
  };
  // A round reads all copies where reading is what limits, and one otherwise.
  const int64_t products = rows <= 16 ? weights.copies : 1;
  std::vector<double> times, peaks, bandwidths;
  for (int round = 0; round < rounds; ++round) {
    peaks.push_back(dot_peak(shape.format, isa, threads));
    bandwidths.push_back(read_bandwidth(weights.packed.get(), weights.bytes * weights.copies, threads));
    const double seconds = seconds_of(threads, [&] {
      for (int64_t i = 0; i < products; ++i) {
        if (!shape.format.floats) kernels::quantize_rows(x.data(), shape.k, shape.k, 0, rows, isa, quantized);
        const std::byte* weight[] = {weights.packed.get() + i * weights.bytes};
        const kernels::MatmulProblem problem = {.shape = shape,
                                                .num_experts = 1,
                                                .weights = weight,
                                                .offsets = offsets,
                                                .x = quantized,
                                                .x_bf16 = x_bf16.data(),
                                                .out = out.data(),
                                                .out_stride = shape.n};
        kernels::matmul(problem, isa, workspace.get(), parallel);
      }
    });
    times.push_back(seconds / static_cast<double>(products));
  }
  const Spread time(times), peak(peaks), bandwidth(bandwidths);
  const double operations = 2.0 * static_cast<double>(rows * shape.n * shape.k) / time.middle;
  const double read = static_cast<double>(weights.bytes) / time.middle;
  std::printf(
      "%5lld rows  %.3f / %.3f / %.3f ms  %.0f GOP/s of %.0f / %.0f / %.0f (%.2f)  %.1f GB/s of %.1f / %.1f / %.1f "
      "(%.2f)\n",
      static_cast<long long>(rows), time.low * 1e3, time.middle * 1e3, time.high * 1e3, operations / 1e9,
      peak.low / 1e9, peak.middle / 1e9, peak.high / 1e9, operations / peak.middle, read / 1e9, bandwidth.low / 1e9,
      bandwidth.middle / 1e9, bandwidth.high / 1e9, read / bandwidth.middle);
  std::fflush(stdout);
}

int64_t number(const char* text) {
  char* end = nullptr;
  const long long value = std::strtoll(text, &end, 10);
  if (*end || value <= 0) throw UsageError("quantized_bench", fmt::format("'{}' is no positive number", text));
  return value;
}

kernels::WeightFormat format_of(const std::string& bits, const char* group) {
  if (bits == "bf16") return kernels::WeightFormat::bf16();
  if (bits == "fp8") return kernels::WeightFormat::e4m3();
  kernels::WeightFormat format = {.bits = static_cast<int>(number(bits.c_str())), .group = number(group)};
  format.channel_scales = format.bits == 8;
  return format;
}

void run(int argc, char** argv) {
  const int64_t threads = number(argv[1]), rounds = number(argv[2]);
  const kernels::WeightShape shape = {number(argv[3]), number(argv[4]), format_of(argv[5], argv[6])};
  const Isa isa = kernels::chosen_isa();
  const Weights weights(shape);
  const std::string_view kernel = shape.format.floats ? kernels::float_kernel_name(isa) : kernels::isa_name(isa);
  fmt::print("{}, {} threads, {} by {}, {}, groups of {}, {:.1f} MB packed\n", kernel, threads, shape.n, shape.k,
             argv[5], argv[6], static_cast<double>(weights.bytes) / 1e6);
  std::fflush(stdout);
  for (int i = 7; i < argc; ++i) bench_rows(weights, isa, number(argv[i]), threads, static_cast<int>(rounds));
}

}  // namespace
}  // namespace puna

int main(int argc, char** argv) {
  if (argc < 8) {
    std::fprintf(stderr, "usage: quantized_bench THREADS ROUNDS N K BITS GROUP ROWS...\n");
    return 2;
  }
  try {
    puna::run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
