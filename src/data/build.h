// Records to a dataset on disk.
#pragma once

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>

#include "arch/config.h"
#include "data/dataset.h"
#include "data/record.h"
#include "media/image_processor.h"
#include "text/tokenizer.h"

namespace puna::data {

/// What decides how records become tokens.
struct Encoding {
  std::shared_ptr<const text::Tokenizer> tokenizer;
  media::ImageProcessorConfig image_processor;
  int tokens_per_tile = 0;  // 0: a model without vision; images are an Error
  text::ChatForm chat_form = text::ChatForm::kHuggingFace;
};
/// Of the vocabulary and all of the above.
std::string encoding_hash(const Encoding& encoding);

struct BuildOptions {
  std::filesystem::path out;
  int64_t max_shard_bytes = int64_t{256} << 20;
  std::string name;                              // shown in the progress bar
  const std::atomic<bool>* interrupt = nullptr;  // once set, Interrupted is thrown; a later build goes on
};

/// Builds the dataset at `out`, or goes on where an earlier build of the same records stopped; a finished one with the
/// same fingerprint and encoding is left as it is. Throws Error when `out` holds another dataset.
void build(RecordSource& records, const Encoding& encoding, const BuildOptions& options);

}  // namespace puna::data
