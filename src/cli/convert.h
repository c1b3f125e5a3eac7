// What writing another format needs beside the weights.
#pragma once

#include <string>

#include "checkpoint/model_source.h"
#include "text/tokenizer_tables.h"

namespace puna::cli {

/// The tokenizer in a GGUF file, or beside any other model. Throws Error when there is none.
text::TokenizerTables tokenizer_of(const std::string& model);

/// One line on standard error for what a GGUF file of this model leaves out, or llama.cpp does not run.
void say_beyond_llama_cpp(const checkpoint::ModelSource& source);

}  // namespace puna::cli
