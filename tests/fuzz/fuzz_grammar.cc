// Any bytes as a grammar, as a JSON schema and as a text: an Error, or masks that agree with taking the tokens one by
// one.
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "grammar/gbnf.h"
#include "grammar/grammar.h"
#include "grammar/json_schema.h"

namespace puna::grammar {
namespace {

std::shared_ptr<const Vocabulary> vocabulary() {
  std::vector<std::string> tokens = {""};
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(std::string(1, static_cast<char>(byte)));
  for (const char* word : {"\"a", "\":", "\",", "aa", "ab", "  ", "{\"", "\"}", "]]", "12", "\xC3\xA9"})
    tokens.push_back(word);
  return std::make_shared<const Vocabulary>(std::move(tokens), std::vector<TokenId>{0});
}

void check(Source source, std::string_view text) {
  static const auto words = vocabulary();
  const auto grammar = CompiledGrammar::compile(std::move(source), words, std::chrono::microseconds(0));
  GrammarState state = grammar->start();
  std::vector<uint64_t> mask(words->mask_words());
  for (size_t i = 0; i < std::min<size_t>(text.size(), 64); ++i) {
    state.mask(mask);
    size_t allowed = 0;
    for (size_t id = 0; id < words->size(); ++id) {
      GrammarState copy = state;
      const bool taken = copy.accept(static_cast<TokenId>(id));
      if (taken != ((mask[id / 64] >> (id % 64) & 1) != 0)) std::abort();
      allowed += taken;
    }
    if (allowed == 0 || state.must_end() != (allowed == 1 && state.is_complete())) std::abort();
    if (!state.accept_bytes(text.substr(i, 1))) break;
  }
}

}  // namespace
}  // namespace puna::grammar

// The grammar or schema, then (behind a zero byte) the text.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view all(reinterpret_cast<const char*>(data), size);
  const std::string_view document = all.substr(0, all.find('\0'));
  const std::string_view text = all.substr(std::min(document.size() + 1, size));
  try {
    puna::grammar::check(puna::grammar::read_gbnf(document, "fuzz"), text);
  } catch (const puna::Error&) {
  }
  try {
    const puna::OrderedJson schema = puna::parse_ordered_json(document, "fuzz");
    puna::grammar::check(puna::grammar::read_json_schema(schema, "fuzz"), text);
  } catch (const puna::Error&) {
  }
  return 0;
}
