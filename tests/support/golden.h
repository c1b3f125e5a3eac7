// Where golden data lies, and comparisons that fail on NaN. For all test programs.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace puna::test {

/// The golden set kept in the repository: a subset of the oracle's public set, without tokenizer files.
std::filesystem::path golden_data();

/// All golden sets to test against: the repository's, and the one that PUNA_GOLDEN_DIR names (same layout), if any.
std::vector<std::filesystem::path> golden_sets();

/// Meta's rank file from the llama-models wheel in .venv, or empty when the wheel is not installed.
std::filesystem::path meta_rank_file();

/// A directory that is removed with its contents when the object goes.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

/// Success when the sizes are equal and max |a - b| <= atol; NaN anywhere is a failure. The message names the worst
/// element.
testing::AssertionResult all_close(std::span<const float> actual, std::span<const float> expected, double atol);

}  // namespace puna::test
