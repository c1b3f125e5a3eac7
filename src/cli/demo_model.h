// A tiny random model with a tokenizer of its own, so that every command can be tried without a download.
#pragma once

#include <cstdint>
#include <filesystem>

namespace puna::cli {

/// Writes the demo model into `dir` in Hugging Face layout. The directory must be absent, empty, or hold an earlier
/// demo model, unless `force`.
void write_demo_model(const std::filesystem::path& dir, uint64_t seed, bool force);

}  // namespace puna::cli
