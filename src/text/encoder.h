// One call of encode: Meta's cuts, special tokens, pieces, merges.
#pragma once

#include <string_view>
#include <vector>

#include "text/bpe.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace puna::text {

struct BytePairModel {
  Vocabulary vocabulary;
  MergeTable merges;
  bool whole_pieces_first = true;  // a piece that is a token is taken whole, even where merges would not build it
};

/// The ids of `text`; see Tokenizer::encode.
std::vector<TokenId> encode_text(const BytePairModel& model, std::string_view text, Specials specials);

}  // namespace puna::text
