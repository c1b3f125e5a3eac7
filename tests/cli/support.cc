#include "tests/cli/support.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <iostream>

#include "base/error.h"
#include "cli/demo_model.h"
#include "cli/run.h"
#include "io/file.h"
#include "tests/support/golden.h"

namespace puna::cli {
namespace fs = std::filesystem;
namespace {

Outcome with_model_and_input(const fs::path& model, const std::vector<std::string>& arguments,
                             const std::string& input) {
  setenv("PUNA_DEMO_MODEL", model.c_str(), 1);
  static const test::TemporaryDirectory scratch;
  const fs::path file = scratch.path() / "stdin";
  io::write_file(file, input);
  PUNA_CHECK(std::freopen(file.c_str(), "r", stdin) != nullptr, "cannot reopen stdin");
  std::cin.clear();
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  const int status = run(arguments);
  std::fflush(stdout);
  return {status, testing::internal::GetCapturedStdout(), testing::internal::GetCapturedStderr()};
}

}  // namespace

Outcome puna(const std::vector<std::string>& arguments, const std::string& input) {
  return with_model_and_input("/no/model/comes/with/the/tests", arguments, input);
}

Outcome with_shipped_model(const fs::path& model, const std::vector<std::string>& arguments) {
  return with_model_and_input(model, arguments, "");
}

const fs::path& demo() {
  static const test::TemporaryDirectory dir;
  static const bool written = (write_demo_model(dir.path() / "demo", 0, false), true);
  static const fs::path path = dir.path() / "demo";
  EXPECT_TRUE(written);
  return path;
}

std::vector<std::string> on_demo(const std::string& command, std::vector<std::string> more) {
  more.insert(more.begin(), {command, "--model", demo().string()});
  return more;
}

void expect_error(const Outcome& outcome, int status, const std::string& part) {
  EXPECT_EQ(outcome.status, status) << outcome.err;
  EXPECT_THAT(outcome.err, testing::HasSubstr(part));
  EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1) << outcome.err;
}

}  // namespace puna::cli
