// The instruction sets that this CPU has, and the tile kernels of each.
#pragma once

#include <string>

#include "kernels/quantized/matmul.h"
#include "kernels/quantized/tile.h"

namespace puna::kernels {

/// An InternalError when it is not available.
const TileKernels& tile_kernels(Isa isa);

/// Why chosen_isa() is what it is, for people: "the best that this CPU has of reference, avx2, avx512_vnni".
std::string reason_of_isa();

/// Whether the CPU multiplies BF16 in tiles of AMX. No kernel here does.
bool cpu_has_amx_bf16();

}  // namespace puna::kernels
