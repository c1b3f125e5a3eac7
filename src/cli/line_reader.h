// Lines from the user: edited with history on a terminal, plain otherwise.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "cli/terminal.h"

namespace puna::cli {

enum class ReadStatus { kLine, kInterrupted, kEnd };

class LineReader {
 public:
  virtual ~LineReader() = default;
  /// Reads one line without its newline. `continuation` shows the prompt of a further line.
  virtual ReadStatus read(bool continuation, std::string& line) = 0;
};

/// With libedit when standard input and output are terminals. `history` is read and kept up to date when given.
std::unique_ptr<LineReader> make_line_reader(const InterruptGuard& interrupt, const Style& style,
                                             const std::optional<std::filesystem::path>& history);

/// A whole message: lines that end in a backslash go on, and """ opens a block that ends with """.
ReadStatus read_message(LineReader& reader, std::string& message);

}  // namespace puna::cli
