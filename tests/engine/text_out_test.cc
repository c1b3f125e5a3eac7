#include "engine/text_out.h"

#include <gtest/gtest.h>

#include "tests/text/tiny_tokenizer.h"

namespace puna::engine {
namespace {

TEST(TextOut, WhatIsHeldBackComesBeforeATokenWithoutText) {
  const std::shared_ptr<const text::Tokenizer> tokenizer =
      text::Tokenizer::from_hf_json(puna::test::tiny_tokenizer_json(), "tiny");
  TextOut out(tokenizer, {"}\n"});
  std::string text;
  const TextOut::Emit emit = [&](std::string_view piece) { text += piece; };
  for (const text::TokenId id : tokenizer->encode("{a}")) out.push(id, emit);
  EXPECT_EQ(text, "{a") << "it may be a stop string's beginning";
  const text::TokenId special = *tokenizer->special("<|python_end|>");
  EXPECT_TRUE(out.is_special(special));
  EXPECT_FALSE(out.is_special(tokenizer->encode("}")[0]));
  out.push(special, emit);
  EXPECT_EQ(text, "{a}");
  for (const text::TokenId id : tokenizer->encode("\n}\nb")) out.push(id, emit);
  out.finish(emit);
  EXPECT_EQ(text, "{a}\n");
  EXPECT_TRUE(out.stopped());
}

}  // namespace
}  // namespace puna::engine
