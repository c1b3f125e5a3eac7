// What a run keeps of the model and the tokenizer that it starts from, so that it goes on without them. Internal to
// src/train.
#pragma once

#include <filesystem>

#include "arch/config.h"
#include "media/image_processor.h"

namespace puna::train {

/// Copies the tokenizer `from`, a file or a directory, and what lies beside it (chat template, image processor,
/// generation_config.json) into the directory `to`; that of a GGUF file is written as tokenizer.json. Throws Error when
/// there is none.
void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to);

/// The same for a run: a copy in <run_dir>/tokenizer, which is returned. Of a run that has `begun` it is left as it is.
std::filesystem::path keep_tokenizer(const std::filesystem::path& from, const std::filesystem::path& run_dir,
                                     bool begun);

struct StartModel {
  arch::Llama4Config config;
  media::ImageProcessorConfig image_processor;  // where the model has vision
};

/// Config and image processor of the checkpoint `from`, copied to <run_dir>/from. Those of a run that has `begun` are
/// read from there alone.
StartModel keep_start_model(const std::filesystem::path& from, const std::filesystem::path& run_dir, bool begun);

}  // namespace puna::train
