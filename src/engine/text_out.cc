#include "engine/text_out.h"

namespace puna::engine {

TextOut::TextOut(std::shared_ptr<const text::Tokenizer> tokenizer, std::vector<std::string> stops)
    : tokenizer_(std::move(tokenizer)), matcher_(std::move(stops)) {
  if (tokenizer_) decoder_.emplace(tokenizer_);
}

bool TextOut::is_special(text::TokenId id) const {
  return tokenizer_ && (id >= tokenizer_->vocab_size() || tokenizer_->is_special(id));
}

void TextOut::push(text::TokenId id, const Emit& emit) {
  if (is_special(id)) return finish(emit);
  if (!decoder_) return;
  const std::string text = matcher_.push(decoder_->push(id));
  if (!text.empty()) emit(text);
}

void TextOut::finish(const Emit& emit) {
  if (!decoder_ || stopped()) return;
  std::string text = matcher_.push(decoder_->finish());
  if (!stopped()) text += matcher_.finish();
  if (!text.empty()) emit(text);
}

}  // namespace puna::engine
