// Saving a model in Hugging Face layout (dense), as transformers reads it.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>

#include "arch/config.h"
#include "arch/parameters.h"

namespace puna::checkpoint {

/// Writes config.json, generation_config.json and model safetensors (shards of at most `max_shard_bytes`, with the
/// index when more than one). `tensor_of` is asked once per row, in table order; one row is in memory at a time. Throws
/// Error before anything is written when `dir` holds a model already or the disk has no room. Every file is whole or
/// absent; config.json comes last.
void save_hf(const std::filesystem::path& dir, const arch::Llama4Config& config, at::ScalarType dtype,
             const std::function<at::Tensor(const arch::ParamRow&)>& tensor_of,
             int64_t max_shard_bytes = int64_t{5} << 30);

/// Copies what lies beside the weights: tokenizer, chat template, image processor, generation_config.json. Missing ones
/// are passed over.
void copy_side_files(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace puna::checkpoint
