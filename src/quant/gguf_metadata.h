// What stands before the tensors of a GGUF file: the model's sizes and its tokenizer, under llama.cpp's keys.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "arch/config.h"
#include "io/gguf_write.h"
#include "quant/rules.h"
#include "text/tokenizer_tables.h"

namespace puna::quant {

/// What the config says that GGUF has no key for and llama.cpp's rules make otherwise, in words; empty: llama.cpp
/// computes this model. Vision has no place in the file and is not told here.
std::vector<std::string> beyond_llama_cpp(const arch::Llama4Config& config);

/// Keys of the architecture "llama4". Of a model that llama.cpp would compute otherwise, the architecture is
/// "llama4-puna", which llama.cpp refuses, and "puna.config" holds the text model's config.json.
io::GgufMetadata gguf_model_keys(const arch::Llama4Config& config, DType dense, const Rules& rules);

/// tokenizer.ggml.* for a model with config.text.vocab_size entries; `template_text`: chat template, or empty.
/// Without tokens: that there is no tokenizer.
io::GgufMetadata gguf_tokenizer_keys(const text::TokenizerTables& tokenizer, const arch::Llama4Config& config,
                                     const std::string& template_text);

/// The frequencies' divisors that rope_freqs.weight holds [K/2]; empty: none.
std::vector<float> rope_divisors(const arch::TextConfig& config);

}  // namespace puna::quant
