// puna bench serve: a part of puna bench.
#pragma once

namespace CLI {
class App;
}

namespace puna::cli {

void add_bench_serve(CLI::App& bench);

}  // namespace puna::cli
