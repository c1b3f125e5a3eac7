#define PUNA_KERNELS_NAMESPACE avx2
#include "kernels/training/kernels.inl"
