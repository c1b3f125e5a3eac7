// Running the program within the tests' process, and the demo model to run it on.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace puna::cli {

struct Outcome {
  int status;
  std::string out, err;
};

/// Runs the program in this process, with `input` as standard input. No model comes with it (see with_shipped_model).
Outcome puna(const std::vector<std::string>& arguments, const std::string& input = "");

/// The same with `model` as the one that comes with Puna.
Outcome with_shipped_model(const std::filesystem::path& model, const std::vector<std::string>& arguments);

/// A demo model, written once.
const std::filesystem::path& demo();

/// `command --model <demo> more...`
std::vector<std::string> on_demo(const std::string& command, std::vector<std::string> more);

/// Expects the status and one line on standard error that holds `part`.
void expect_error(const Outcome& outcome, int status, const std::string& part);

}  // namespace puna::cli
