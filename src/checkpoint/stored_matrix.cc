#include "checkpoint/stored_matrix.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Float8_e4m3fn.h>
#include <c10/util/Float8_e5m2.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/error.h"
#include "checkpoint/scalar_type.h"
#include "kernels/formats/gguf_blocks.h"
#include "kernels/formats/packed_integers.h"

namespace puna::checkpoint {
namespace {

using c10::ScalarType;

template <typename T>
T load_unaligned(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// Calls f with a value of the C++ type that `dtype` stands for.
template <typename F>
void with_loadable_type(ScalarType dtype, F f) {
  switch (dtype) {
    case ScalarType::Double:
      return f(double{});
    case ScalarType::Float:
      return f(float{});
    case ScalarType::Half:
      return f(c10::Half{});
    case ScalarType::BFloat16:
      return f(c10::BFloat16{});
    default:
      PUNA_CHECK(false, "cannot load as {}", c10::toString(dtype));
  }
}

template <typename F>
void with_stored_type(ScalarType dtype, F f) {
  if (dtype == ScalarType::Float8_e4m3fn) return f(c10::Float8_e4m3fn{});
  if (dtype == ScalarType::Float8_e5m2) return f(c10::Float8_e5m2{});
  with_loadable_type(dtype, f);
}

template <typename From, typename To>
void convert(const std::byte* from, To* to, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const From value = load_unaligned<From>(from + i * sizeof(From));
    if constexpr (std::is_same_v<From, double>)
      to[i] = static_cast<To>(value);
    else
      to[i] = static_cast<To>(static_cast<float>(value));
  }
}

/// `count` values of `stored` type into `out` as `dtype`.
void convert_values(const std::byte* from, ScalarType stored, ScalarType dtype, void* out, int64_t count) {
  if (stored == dtype) {
    std::memcpy(out, from, count * c10::elementSize(dtype));
    return;
  }
  with_stored_type(stored, [&](auto from_type) {
    with_loadable_type(
        dtype, [&](auto to_type) { convert<decltype(from_type)>(from, static_cast<decltype(to_type)*>(out), count); });
  });
}

class PlainMatrix final : public StoredMatrix {
 public:
  PlainMatrix(int64_t rows, int64_t cols, ScalarType stored, std::span<const std::byte> bytes,
              std::shared_ptr<const void> owner)
      : StoredMatrix(rows, cols, std::move(owner)), stored_(stored), bytes_(bytes) {}

  void read(int64_t begin, int64_t end, ScalarType dtype, void* out) const override {
    const auto* from = bytes_.data() + begin * cols() * c10::elementSize(stored_);
    convert_values(from, stored_, dtype, out, (end - begin) * cols());
  }

  const void* bytes_as(ScalarType dtype) const override {
    const bool aligned = reinterpret_cast<uintptr_t>(bytes_.data()) % c10::elementSize(stored_) == 0;
    return dtype == stored_ && aligned ? bytes_.data() : nullptr;
  }

 private:
  ScalarType stored_;
  std::span<const std::byte> bytes_;
};

/// Shared by everything that decodes to FP32 first: FP32 results are written in place, others through a buffer.
template <typename DecodeRow>
void decode_rows(int64_t begin, int64_t end, int64_t cols, ScalarType dtype, void* out, DecodeRow decode_row) {
  if (dtype == ScalarType::Float) {
    for (int64_t r = begin; r < end; ++r) decode_row(r, static_cast<float*>(out) + (r - begin) * cols);
    return;
  }
  std::vector<float> buffer(cols);
  const int64_t row_bytes = cols * static_cast<int64_t>(c10::elementSize(dtype));
  for (int64_t r = begin; r < end; ++r) {
    decode_row(r, buffer.data());
    convert_values(reinterpret_cast<const std::byte*>(buffer.data()), ScalarType::Float, dtype,
                   static_cast<std::byte*>(out) + (r - begin) * row_bytes, cols);
  }
}

class BlockMatrix final : public StoredMatrix {
 public:
  BlockMatrix(int64_t rows, int64_t cols, DType stored, std::span<const std::byte> bytes,
              std::shared_ptr<const void> owner)
      : StoredMatrix(rows, cols, std::move(owner)), stored_(stored), bytes_(bytes) {}

  bool is_quantised() const override { return true; }

  void read(int64_t begin, int64_t end, ScalarType dtype, void* out) const override {
    const int64_t row_bytes = *dtype_bytes(stored_, cols());
    decode_rows(begin, end, cols(), dtype, out, [&](int64_t r, float* row) {
      kernels::dequantize_blocks(stored_, bytes_.data() + r * row_bytes, cols(), row);
    });
  }

 private:
  DType stored_;
  std::span<const std::byte> bytes_;
};

float scale_at(const Quantised& q, int64_t index) {
  switch (q.scale_dtype) {
    case DType::F64:
      return static_cast<float>(load_unaligned<double>(q.scales.data() + index * 8));
    case DType::F32:
      return load_unaligned<float>(q.scales.data() + index * 4);
    case DType::F16:
      return load_unaligned<c10::Half>(q.scales.data() + index * 2);
    default:
      return load_unaligned<c10::BFloat16>(q.scales.data() + index * 2);
  }
}

class QuantisedMatrix final : public StoredMatrix {
 public:
  QuantisedMatrix(int64_t rows, int64_t cols, const Quantised& quantised, std::shared_ptr<const void> owner)
      : StoredMatrix(rows, cols, std::move(owner)), q_(quantised) {}

  void read(int64_t begin, int64_t end, ScalarType dtype, void* out) const override {
    decode_rows(begin, end, cols(), dtype, out, [&](int64_t r, float* row) {
      decode_values(q_.values.data() + r * q_.row_bytes, row);
      scale_row(r, row);
    });
  }

  bool is_quantised() const override { return true; }

  std::optional<kernels::WeightFormat> integer_format() const override {
    const bool whole = q_.block_cols >= cols();
    if (q_.coding == Coding::kFp8E4M3)
      return whole && q_.zero_points.empty() ? std::optional(kernels::WeightFormat::e4m3()) : std::nullopt;
    const int64_t width = whole ? cols() : q_.block_cols;
    const int64_t group = width % 128 == 0 ? 128 : 32;
    if (!whole && width % group != 0) return std::nullopt;
    return kernels::WeightFormat{.bits = q_.coding == Coding::kInt8 ? 8 : packed_bits(q_.coding),
                                 .group = group,
                                 .channel_scales = whole,
                                 .zeros = !q_.zero_points.empty()};
  }

  void read_integers(int64_t begin, int64_t end, const IntegerBlock& out, std::string_view name) const override {
    const auto format = integer_format();
    PUNA_CHECK(format, "'{}' is not stored as integers", name);
    const int64_t group = format->channel_scales ? cols() : format->group, groups = num_blocks(cols(), group);
    const int64_t stored_groups = num_blocks(cols(), q_.block_cols);
    for (int64_t r = begin; r < end; ++r) {
      int8_t* q = out.q + (r - begin) * cols();
      decode_integers(q_.values.data() + r * q_.row_bytes, q);
      for (int64_t g = 0; g < groups; ++g) {
        const int64_t block_row = r / q_.block_rows, block = g * group / q_.block_cols;
        const float scale = scale_at(q_, block_row * stored_groups + block);
        const int zero = static_cast<int>(zero_at(block_row, block, stored_groups));
        const int64_t first = g * group, last = std::min(cols(), first + group);
        const int sign = format->floats ? -128 : zero;  // FP8 has two zeros
        const bool all_zero = std::all_of(q + first, q + last, [=](int v) { return v == zero || v == sign; });
        if (!std::isfinite(scale) || (scale == 0 && !all_zero))
          fail(name, "the scale of output {}, input {} is {}; is the file damaged, or not downloaded completely?", r,
               first, scale);
        out.scales[(r - begin) * groups + g] = scale;
        if (out.zeros) out.zeros[(r - begin) * groups + g] = static_cast<int8_t>(zero);
      }
    }
  }

 private:
  void decode_integers(const std::byte* from, int8_t* q) const {
    if (const int bits = packed_bits(q_.coding); bits != 0 && bits < 8) {
      kernels::unpack_integers(from, bits, 1, cols(), q);
      return;
    }
    const int offset = q_.coding == Coding::kPacked8 ? 128 : 0;
    const auto* u8 = reinterpret_cast<const uint8_t*>(from);
    for (int64_t c = 0; c < cols(); ++c) q[c] = static_cast<int8_t>(u8[c] - offset);
  }

  void decode_values(const std::byte* from, float* row) const {
    const auto* u8 = reinterpret_cast<const uint8_t*>(from);
    const int64_t n = cols();
    switch (q_.coding) {
      case Coding::kPacked2:
      case Coding::kPacked3:
      case Coding::kPacked4:
        decode_packed(packed_bits(q_.coding), from, row);
        break;
      case Coding::kPacked8:  // little-endian words with the low bits first: the values are in byte order
        for (int64_t c = 0; c < n; ++c) row[c] = static_cast<float>(u8[c] - 128);
        break;
      case Coding::kInt8:
        for (int64_t c = 0; c < n; ++c) row[c] = static_cast<float>(static_cast<int8_t>(u8[c]));
        break;
      case Coding::kFp8E4M3:
        kernels::dequantize_blocks(DType::F8E4M3, from, n, row);
        break;
    }
  }

  void decode_packed(int bits, const std::byte* from, float* row) const {
    std::array<int8_t, 512> values;  // whole words of any number of bits
    for (int64_t c = 0; c < cols(); c += values.size()) {
      const int64_t count = std::min<int64_t>(values.size(), cols() - c);
      kernels::unpack_integers(from + c * bits / 8, bits, 1, count, values.data());
      std::copy_n(values.data(), count, row + c);
    }
  }

  void scale_row(int64_t r, float* row) const {
    const int64_t groups = num_blocks(cols(), q_.block_cols);
    for (int64_t g = 0; g < groups; ++g) {
      const float scale = scale_at(q_, r / q_.block_rows * groups + g);
      const float zero = zero_at(r / q_.block_rows, g, groups);
      const int64_t last = std::min(cols(), (g + 1) * q_.block_cols);
      for (int64_t c = g * q_.block_cols; c < last; ++c) row[c] = (row[c] - zero) * scale;
    }
  }

  float zero_at(int64_t r, int64_t g, int64_t groups) const {
    if (q_.zero_points.empty()) return 0;
    const int bits = packed_bits(q_.coding);
    if (bits == 0) return load_unaligned<int8_t>(q_.zero_points.data() + r * groups + g);
    return kernels::packed_integer(q_.zero_points.data() + g * 4, groups, bits, r);
  }

  Quantised q_;
};

void check_sizes(int64_t rows, int64_t cols, const Quantised& q) {
  const int bits = packed_bits(q.coding);
  const int64_t least_row_bytes = bits ? kernels::packed_words(bits, cols) * 4 : cols;
  PUNA_CHECK(q.block_rows >= 1 && q.block_cols >= 1, "blocks of {} x {}", q.block_rows, q.block_cols);
  PUNA_CHECK(q.row_bytes >= least_row_bytes &&
                 static_cast<int64_t>(q.values.size()) / std::max<int64_t>(q.row_bytes, 1) >= rows,
             "{} bytes of values, {} a row, for [{}, {}]", q.values.size(), q.row_bytes, rows, cols);
  const int64_t scale_rows = num_blocks(rows, q.block_rows), scale_cols = num_blocks(cols, q.block_cols);
  const auto scale_bytes = dtype_bytes(q.scale_dtype, scale_rows * scale_cols);
  PUNA_CHECK(scale_bytes && static_cast<int64_t>(q.scales.size()) >= *scale_bytes, "{} bytes of scales for [{}, {}]",
             q.scales.size(), scale_rows, scale_cols);
  const int64_t zero_bytes = bits ? kernels::packed_words(bits, scale_rows) * scale_cols * 4 : scale_rows * scale_cols;
  PUNA_CHECK(q.zero_points.empty() || static_cast<int64_t>(q.zero_points.size()) >= zero_bytes,
             "{} bytes of zero points for [{}, {}]", q.zero_points.size(), scale_rows, scale_cols);
}

}  // namespace

StoredMatrix::StoredMatrix(int64_t rows, int64_t cols, std::shared_ptr<const void> owner)
    : rows_(rows), cols_(cols), owner_(std::move(owner)) {}

const void* StoredMatrix::bytes_as(ScalarType) const { return nullptr; }

void StoredMatrix::read_integers(int64_t, int64_t, const IntegerBlock&, std::string_view name) const {
  PUNA_CHECK(false, "'{}' is not stored as integers", name);
}

bool is_loadable(ScalarType dtype) {
  return dtype == ScalarType::Double || dtype == ScalarType::Float || dtype == ScalarType::Half ||
         dtype == ScalarType::BFloat16;
}

std::shared_ptr<const StoredMatrix> matrix_of(const io::TensorView& view, int64_t first_row, int64_t rows,
                                              int64_t cols) {
  const auto row_bytes = dtype_bytes(view.dtype, cols);
  PUNA_CHECK(row_bytes && (first_row + rows) * *row_bytes <= static_cast<int64_t>(view.bytes.size()),
             "rows {} + {} of {} columns in '{}'", first_row, rows, cols, view.name);
  const auto bytes = view.bytes.subspan(first_row * *row_bytes, rows * *row_bytes);
  if (dtype_is_block(view.dtype)) return std::make_shared<BlockMatrix>(rows, cols, view.dtype, bytes, view.owner);
  const auto stored = scalar_type(view.dtype);
  PUNA_CHECK(stored && c10::isFloatingType(*stored), "'{}' is {}", view.name, dtype_name(view.dtype));
  return std::make_shared<PlainMatrix>(rows, cols, *stored, bytes, view.owner);
}

std::shared_ptr<const StoredMatrix> quantised_matrix(int64_t rows, int64_t cols, const Quantised& quantised,
                                                     std::shared_ptr<const void> owner) {
  check_sizes(rows, cols, quantised);
  return std::make_shared<QuantisedMatrix>(rows, cols, quantised, std::move(owner));
}

}  // namespace puna::checkpoint
