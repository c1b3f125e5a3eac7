#include "kernels/attention/kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <cstring>
#include <utility>

namespace puna::kernels {
namespace {

#include "kernels/attention/split_avx512.inl"

}  // namespace

const AttentionKernels* avx512_attention_kernels() { return &kKernels; }

}  // namespace puna::kernels
#else
namespace puna::kernels {
const AttentionKernels* avx512_attention_kernels() { return nullptr; }
}  // namespace puna::kernels
#endif
