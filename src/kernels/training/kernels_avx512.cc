#define PUNA_KERNELS_NAMESPACE avx512
#include "kernels/training/kernels.inl"
