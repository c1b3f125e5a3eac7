#include "engine/guide.h"

namespace puna::engine {

std::shared_ptr<const grammar::Vocabulary> grammar_vocabulary(const LoadedModel& loaded) {
  return grammar::Vocabulary::of(*loaded.tokenizer, loaded.stop_tokens,
                                 static_cast<size_t>(loaded.config().text.vocab_size));
}

}  // namespace puna::engine
