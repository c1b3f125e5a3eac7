// One record to tokens, with what the model is to predict.
#pragma once

#include "data/build.h"
#include "data/shard.h"

namespace puna::data {

/// Throws Error naming the record: a broken image, an image for a model without vision, a chat in which the assistant
/// says nothing, a tokenizer without the special tokens.
EncodedDocument encode_record(Record record, const Encoding& encoding);

/// The ids that may stand in a shard of this encoding.
TokenRange token_range(const Encoding& encoding);

}  // namespace puna::data
