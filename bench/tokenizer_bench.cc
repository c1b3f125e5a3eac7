// Times Tokenizer::encode on one file, single-threaded: tokenizer_bench TOKENIZER TEXT ROUNDS IDS_OUT
// Prints one JSON object; writes the ids as little-endian int32, for bench/tokenizer.py to compare.
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>

#include "io/file.h"
#include "text/tokenizer.h"

namespace puna {
namespace {

/// CPU time of this process, so that other work on the machine does not count.
double cpu_seconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

int bench(const std::filesystem::path& tokenizer_path, const char* text_path, int rounds, const char* ids_path) {
  double start = cpu_seconds();
  const bool is_json = tokenizer_path.extension() == ".json";
  const auto tokenizer =
      is_json ? text::Tokenizer::from_hf_json(tokenizer_path) : text::Tokenizer::from_rank_file(tokenizer_path);
  Json result = {{"load_s", cpu_seconds() - start}};
  const std::string text = io::read_file(text_path, int64_t{1} << 30);
  std::vector<text::TokenId> ids;
  for (int i = 0; i < rounds; ++i) {
    start = cpu_seconds();
    ids = tokenizer->encode(text);
    result["seconds"].push_back(cpu_seconds() - start);
  }
  std::ofstream(ids_path, std::ios::binary)
      .write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(ids.size() * sizeof(ids[0])));
  std::cout << result << "\n";
  return 0;
}

}  // namespace
}  // namespace puna

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: tokenizer_bench TOKENIZER TEXT ROUNDS IDS_OUT\n");
    return 2;
  }
  try {
    return puna::bench(argv[1], argv[2], std::atoi(argv[3]), argv[4]);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return 1;
  }
}
