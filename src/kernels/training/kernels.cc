#include "kernels/training/kernels.h"

namespace puna::kernels {

namespace plain {
const TrainingKernels<float>& kernels_f32();
const TrainingKernels<double>& kernels_f64();
}  // namespace plain

#if defined(__x86_64__)
namespace avx2 {
const TrainingKernels<float>& kernels_f32();
const TrainingKernels<double>& kernels_f64();
}  // namespace avx2
namespace avx512 {
const TrainingKernels<float>& kernels_f32();
const TrainingKernels<double>& kernels_f64();
}  // namespace avx512

namespace {
const bool kAvx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                     __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
const bool kAvx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}  // namespace

template <>
const TrainingKernels<float>& training_kernels() {
  return kAvx512 ? avx512::kernels_f32() : kAvx2 ? avx2::kernels_f32() : plain::kernels_f32();
}
template <>
const TrainingKernels<double>& training_kernels() {
  return kAvx512 ? avx512::kernels_f64() : kAvx2 ? avx2::kernels_f64() : plain::kernels_f64();
}
#else
template <>
const TrainingKernels<float>& training_kernels() {
  return plain::kernels_f32();
}
template <>
const TrainingKernels<double>& training_kernels() {
  return plain::kernels_f64();
}
#endif

}  // namespace puna::kernels
