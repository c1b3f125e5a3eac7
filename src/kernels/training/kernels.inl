// Included by one file per instruction set, which defines PUNA_KERNELS_NAMESPACE. Nothing here may be a function of the
// standard library that could be emitted and then shared with files of other flags.
#include <cstdint>

#include "kernels/training/kernels.h"

namespace puna::kernels::PUNA_KERNELS_NAMESPACE {
namespace {

#include "kernels/training/values.inl"

#include "kernels/training/attention.inl"
#include "kernels/training/loss.inl"
#include "kernels/training/rows.inl"

template <typename S>
constexpr TrainingKernels<S> kKernels = {
    .loss_sums = loss_sums<Wide<S>>,
    .loss_gradients = loss_gradients<Wide<S>>,
    .norm = norm<S>,
    .norm_backward = norm_backward<S>,
    .swiglu = swiglu<S>,
    .swiglu_backward = swiglu_backward<S>,
    .prepare_heads = prepare_heads<S>,
    .prepare_heads_backward = prepare_heads_backward<S>,
    .attention = attention<S>,
    .attention_backward = attention_backward<S>,
    .gather_scaled = gather_scaled<S>,
    .gather = gather<S>,
    .combine = combine<S>,
    .combine_scaled = combine_scaled<S>,
};

}  // namespace

const TrainingKernels<float>& kernels_f32() { return kKernels<float>; }
const TrainingKernels<double>& kernels_f64() { return kKernels<double>; }
const TrainingKernels<Bf16>& kernels_bf16() { return kKernels<Bf16>; }

}  // namespace puna::kernels::PUNA_KERNELS_NAMESPACE
