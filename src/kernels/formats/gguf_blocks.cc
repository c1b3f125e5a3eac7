#include "kernels/formats/gguf_blocks.h"

#include <cstring>

#include "base/error.h"
#include "kernels/formats/floats.h"

namespace puna::kernels {
namespace {

template <typename T>
T load(const std::byte* src) {
  T value;
  std::memcpy(&value, src, sizeof(T));
  return value;
}

float load_f16(const std::byte* src) { return f16_to_float(load<uint16_t>(src)); }

uint8_t byte_at(const std::byte* src, int i) { return std::to_integer<uint8_t>(src[i]); }

void q4_0_block(const std::byte* src, float* dst) {
  const float d = load_f16(src);
  for (int i = 0; i < 16; ++i) {
    const int q = byte_at(src, 2 + i);
    dst[i] = d * static_cast<float>((q & 15) - 8);
    dst[i + 16] = d * static_cast<float>((q >> 4) - 8);
  }
}

void q8_0_block(const std::byte* src, float* dst) {
  const float d = load_f16(src);
  for (int i = 0; i < 32; ++i) dst[i] = d * static_cast<float>(load<int8_t>(src + 2 + i));
}

// The j-th (0..7) six-bit scale and minimum of a Q4_K or Q5_K block; `src` points to its 12 packed bytes.
void k_scale_min(const std::byte* src, int j, int& scale, int& minimum) {
  if (j < 4) {
    scale = byte_at(src, j) & 63;
    minimum = byte_at(src, j + 4) & 63;
  } else {
    const int low = byte_at(src, j + 4);
    scale = (low & 15) | (byte_at(src, j - 4) >> 6 << 4);
    minimum = (low >> 4) | (byte_at(src, j) >> 6 << 4);
  }
}

// Q4_K and Q5_K: 8 runs of 32 elements. `fifth` is null for Q4_K.
void q45_k_block(const std::byte* src, const std::byte* fifth, const std::byte* nibbles, float* dst) {
  const float d = load_f16(src), dmin = load_f16(src + 2);
  for (int run = 0; run < 8; ++run) {
    int scale, minimum;
    k_scale_min(src + 4, run, scale, minimum);
    const float step = d * static_cast<float>(scale), shift = dmin * static_cast<float>(minimum);
    for (int i = 0; i < 32; ++i) {
      int q = byte_at(nibbles, run / 2 * 32 + i) >> (run % 2 * 4) & 15;
      if (fifth) q |= (byte_at(fifth, i) >> run & 1) << 4;
      dst[run * 32 + i] = step * static_cast<float>(q) - shift;
    }
  }
}

void q4_k_block(const std::byte* src, float* dst) { q45_k_block(src, nullptr, src + 16, dst); }
void q5_k_block(const std::byte* src, float* dst) { q45_k_block(src, src + 16, src + 48, dst); }

// Two halves of 128 elements; in each, four runs of 32 share 64 bytes of nibbles and 32 bytes of bit pairs.
void q6_k_block(const std::byte* src, float* dst) {
  const float d = load_f16(src + 208);
  for (int half = 0; half < 2; ++half) {
    const std::byte *low = src + 64 * half, *high = src + 128 + 32 * half, *scales = src + 192 + 8 * half;
    for (int run = 0; run < 4; ++run) {
      for (int i = 0; i < 32; ++i) {
        const int nibble = byte_at(low, run % 2 * 32 + i) >> (run / 2 * 4) & 15;
        const int q = (nibble | (byte_at(high, i) >> (2 * run) & 3) << 4) - 32;
        const float step = d * static_cast<float>(load<int8_t>(scales + run * 2 + i / 16));
        dst[half * 128 + run * 32 + i] = step * static_cast<float>(q);
      }
    }
  }
}

template <auto kBlock>
void each_block(DType dtype, const std::byte* src, int64_t elements, float* dst) {
  const DTypeInfo& info = dtype_info(dtype);
  for (int64_t done = 0; done < elements; done += info.block_elements, src += info.block_bytes) kBlock(src, dst + done);
}

template <typename T, auto kConvert>
void each_value(DType, const std::byte* src, int64_t elements, float* dst) {
  for (int64_t i = 0; i < elements; ++i) dst[i] = kConvert(load<T>(src + i * static_cast<int64_t>(sizeof(T))));
}

float narrow(double value) { return static_cast<float>(value); }
float same(float value) { return value; }

using Convert = void (*)(DType, const std::byte*, int64_t, float*);

Convert find_convert(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return each_value<double, narrow>;
    case DType::F32:
      return each_value<float, same>;
    case DType::F16:
      return each_value<uint16_t, f16_to_float>;
    case DType::BF16:
      return each_value<uint16_t, bf16_to_float>;
    case DType::F8E4M3:
      return each_value<uint8_t, f8e4m3_to_float>;
    case DType::F8E5M2:
      return each_value<uint8_t, f8e5m2_to_float>;
    case DType::Q4_0:
      return each_block<q4_0_block>;
    case DType::Q8_0:
      return each_block<q8_0_block>;
    case DType::Q4_K:
      return each_block<q4_k_block>;
    case DType::Q5_K:
      return each_block<q5_k_block>;
    case DType::Q6_K:
      return each_block<q6_k_block>;
    default:
      return nullptr;
  }
}

}  // namespace

bool can_dequantize(DType dtype) { return find_convert(dtype) != nullptr; }

void dequantize_blocks(DType dtype, const std::byte* src, int64_t elements, float* dst) {
  const Convert convert = find_convert(dtype);
  PUNA_CHECK(convert && elements >= 0 && elements % dtype_info(dtype).block_elements == 0, "{} elements of {}",
             elements, dtype_name(dtype));
  convert(dtype, src, elements, dst);
}

}  // namespace puna::kernels
