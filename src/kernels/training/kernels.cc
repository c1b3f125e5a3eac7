#include "kernels/training/kernels.h"

#include "base/env.h"
#include "kernels/quantized/matmul.h"

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
// PUNA_ISA names the set of these kernels as well; without it the CPU decides, also one without VNNI.
bool asked_for(Isa isa) { return !env::isa() || chosen_isa() >= isa; }
bool use_avx512() {
  static const bool yes = asked_for(Isa::Avx512Vnni) && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512vl");
  return yes;
}
bool use_avx2() {
  static const bool yes = asked_for(Isa::Avx2) && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return yes;
}
}  // namespace
#define PUNA_BEST(function) (use_avx512() ? avx512::function() : use_avx2() ? avx2::function() : plain::function())
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
