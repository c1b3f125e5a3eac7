// Tokens to text: through the stream decoder and the stop strings, to the result and a callback.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/stop_matcher.h"
#include "text/tokenizer.h"

namespace puna::engine {

class TextOut {
 public:
  /// Without a tokenizer no text comes out.
  TextOut(std::shared_ptr<const text::Tokenizer> tokenizer, std::vector<std::string> stops);

  using Emit = std::function<void(std::string_view)>;
  /// Whether the token has no text.
  bool is_special(text::TokenId id) const;
  /// The text of a stop string is never given out, wherever token boundaries fall. It ends before a token without text.
  void push(text::TokenId id, const Emit& emit);
  void finish(const Emit& emit);

  bool stopped() const { return matcher_.matched() >= 0; }
  const std::string& stop() const { return matcher_.stop(matcher_.matched()); }

 private:
  std::shared_ptr<const text::Tokenizer> tokenizer_;
  std::optional<text::StreamDecoder> decoder_;
  StopMatcher matcher_;
};

}  // namespace puna::engine
