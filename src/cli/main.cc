#include "base/env.h"
#include "cli/run.h"

int main(int argc, char** argv) {
  puna::env::limit_compiled_products();
  return puna::cli::run({argv + 1, argv + argc});
}
