// A model against the one that it was made from, on a text: for every command that shows it.
#pragma once

#include <string>

#include "engine/compare.h"

namespace puna::cli {

/// engine::compare() of the file's text with a progress bar. Throws Interrupted when cancelled.
engine::Comparison compare_on(const std::string& text_file, engine::CompareOptions options);

/// A small table for people.
std::string comparison_text(const engine::Comparison& comparison);

}  // namespace puna::cli
