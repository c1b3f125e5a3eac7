#include "tests/support/golden.h"

#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <stdexcept>

namespace puna::test {
namespace fs = std::filesystem;

fs::path golden_data() { return fs::path(PUNA_SOURCE_DIR) / "tests/golden/data"; }

std::vector<fs::path> golden_sets() {
  std::vector<fs::path> sets = {golden_data()};
  if (const char* more = std::getenv("PUNA_GOLDEN_DIR"); more && *more) sets.emplace_back(more);
  return sets;
}

fs::path meta_rank_file() {
  const fs::path lib = fs::path(PUNA_SOURCE_DIR) / ".venv/lib";
  std::error_code ec;
  for (const auto& python : fs::directory_iterator(lib, ec)) {
    const fs::path file = python.path() / "site-packages/llama_models/llama4/tokenizer.model";
    if (fs::exists(file)) return file;
  }
  return {};
}

TemporaryDirectory::TemporaryDirectory() {
  std::string pattern = (fs::temp_directory_path() / "puna-test-XXXXXX").string();
  if (!mkdtemp(pattern.data())) throw std::runtime_error("cannot make a temporary directory like " + pattern);
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ec;
  fs::remove_all(path_, ec);
}

testing::AssertionResult all_close(std::span<const float> actual, std::span<const float> expected, double atol) {
  if (actual.size() != expected.size())
    return testing::AssertionFailure() << "sizes differ: " << actual.size() << " and " << expected.size();
  size_t worst = 0;
  double worst_difference = -1;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - static_cast<double>(expected[i]));
    if (std::isnan(difference))
      return testing::AssertionFailure() << "NaN at " << i << ": " << actual[i] << " and " << expected[i];
    if (difference > worst_difference) worst = i, worst_difference = difference;
  }
  if (worst_difference <= atol) return testing::AssertionSuccess();
  return testing::AssertionFailure() << "max difference " << worst_difference << " > " << atol << " at " << worst
                                     << ": " << actual[worst] << " and " << expected[worst];
}

}  // namespace puna::test
