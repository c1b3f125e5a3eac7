#include "kernels/training/kernels.h"

namespace puna::kernels {

#define PUNA_DECLARE_KERNELS(isa)               \
  namespace isa {                               \
  const TrainingKernels<float>& kernels_f32();  \
  const TrainingKernels<double>& kernels_f64(); \
  const TrainingKernels<Bf16>& kernels_bf16();  \
  }
PUNA_DECLARE_KERNELS(plain)

#if defined(__x86_64__)
PUNA_DECLARE_KERNELS(avx2)
PUNA_DECLARE_KERNELS(avx512)
namespace {
const bool kAvx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                     __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
const bool kAvx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}  // namespace
#define PUNA_BEST(function) (kAvx512 ? avx512::function() : kAvx2 ? avx2::function() : plain::function())
#else
#define PUNA_BEST(function) plain::function()
#endif

template <>
const TrainingKernels<float>& training_kernels() {
  return PUNA_BEST(kernels_f32);
}
template <>
const TrainingKernels<double>& training_kernels() {
  return PUNA_BEST(kernels_f64);
}
template <>
const TrainingKernels<Bf16>& training_kernels() {
  return PUNA_BEST(kernels_bf16);
}

int64_t attention_scratch(int64_t rows, int64_t width) {
  const int64_t R = (rows + 15) / 16 * 16, P = (width + 15) / 16 * 16;
  return 6 * R * P + 2 * 16 * R + 3 * 16 * P;
}

}  // namespace puna::kernels
