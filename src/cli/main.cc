#include <cstdlib>

#include "cli/run.h"

int main(int argc, char** argv) {
  // LibTorch keeps a compiled BF16 product for every number of rows that it has seen: gigabytes, where experts get
  // other rows at every step, and no faster.
  for (const char* cache : {"ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"})
    setenv(cache, "32", /*replace=*/0);
  return puna::cli::run({argv + 1, argv + argc});
}
