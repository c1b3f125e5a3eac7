#define PUNA_KERNELS_NAMESPACE plain
#include "kernels/training/kernels.inl"
