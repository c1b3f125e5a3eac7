// The instruction sets that this CPU has, and the tile kernels of each.
#pragma once

#include "kernels/quantized/matmul.h"
#include "kernels/quantized/tile.h"

namespace puna::kernels {

/// An InternalError when it is not available.
const TileKernels& tile_kernels(Isa isa);

}  // namespace puna::kernels
