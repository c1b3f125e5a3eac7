// Many prompts of a file through one engine.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine/engine.h"

namespace puna::cli {

/// One line: what it says of its own; the rest is as the command line says.
struct PromptLine {
  std::string where;  // file and line, for messages
  std::string prompt, system;
  std::vector<std::string> images;  // beside the file, or absolute
  std::vector<std::string> stop;
  std::optional<int64_t> max_tokens;
  std::optional<double> temperature;
  std::optional<uint64_t> seed;
  std::optional<int> completions;
};

/// Reads and checks all lines before anything runs. Throws Error with file and line; empty lines are left out.
std::vector<PromptLine> read_prompts(const std::filesystem::path& file);

/// Runs them, at most `max_concurrent` at a time, and prints one JSON object a line to standard output in their order:
/// index, text, tokens, stop_reason, usage, or error. A prompt that cannot run does not stop the others. Without a seed
/// of its own, line i draws with the defaults' seed + i. Tokens per second go to standard error at the end.
void run_prompts(const engine::LoadedModel& loaded, engine::EngineOptions options, const std::vector<PromptLine>& lines,
                 const engine::Request& defaults, bool raw, int64_t max_concurrent);

}  // namespace puna::cli
