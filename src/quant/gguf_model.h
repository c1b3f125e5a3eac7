// A model as one GGUF file, streamed: memory is that of a few matrices.
#pragma once

#include <filesystem>

#include "checkpoint/model_source.h"
#include "quant/quantise.h"
#include "text/tokenizer_tables.h"

namespace puna::quant {

/// Writes the text model as `out`, which is whole or absent, with the tokenizer and chat template inside. Rows whose
/// columns are no whole blocks of a rule's format become Q8_0 where that fits (report.wider), else are kept (report
/// .kept). Norms and router are F32, kept matrices of type `dense` (BF16, F16 or F32). Throws Error before anything is
/// written when `out` exists, the rules hold other than GGUF's blocks, or the disk has no room.
QuantiseReport write_gguf(const std::filesystem::path& path, const checkpoint::ModelSource& source,
                          const text::TokenizerTables& tokenizer, const std::filesystem::path& out, DType dense,
                          const QuantiseOptions& options);

}  // namespace puna::quant
