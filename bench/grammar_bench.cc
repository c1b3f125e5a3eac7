// Times masks of typical schemas: grammar_bench [TOKENIZER]. Texts are drawn from the masks at random; a mask is timed
// together with taking the token, first on new grammars ("first"), then on the same ones with other texts ("again").
// Without a tokenizer the vocabulary is one of 202,048 random pieces of words, numbers and JSON.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <random>

#include "base/error.h"
#include "base/json.h"
#include "grammar/grammar.h"
#include "grammar/json_schema.h"
#include "text/tokenizer.h"

namespace puna::grammar {
namespace {

using Clock = std::chrono::steady_clock;

double microseconds(Clock::duration time) { return std::chrono::duration<double, std::micro>(time).count(); }

constexpr size_t kVocabulary = 202'048;

struct Example {
  const char *name, *schema;
};
constexpr Example kExamples[] = {
    {"person",
     R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},
      "email":{"type":"string","format":"email"},"born":{"type":"string","format":"date"}},"required":["name","age"]})"},
    {"tool call",
     R"({"type":"object","properties":{"name":{"enum":["search","open","write_file","run"]},"arguments":{"type":"object",
      "properties":{"path":{"type":"string"},"query":{"type":"string"},"lines":{"type":"array","items":{"type":"integer"}}},
      "required":["path"]}},"required":["name","arguments"]})"},
    {"tree", R"({"$defs":{"node":{"type":"object","properties":{"label":{"type":"string"},"children":{"type":"array",
      "items":{"$ref":"#/$defs/node"}}},"required":["label","children"]}},"$ref":"#/$defs/node"})"},
    {"records", R"({"type":"array","items":{"type":"object","properties":{"id":{"type":"string","format":"uuid"},
      "at":{"type":"string","format":"date-time"},"value":{"type":"number"},"ok":{"type":"boolean"},
      "note":{"type":["string","null"],"maxLength":40}},"required":["id","at","value","ok"]}})"},
    {"choices",
     R"({"anyOf":[{"type":"object","properties":{"kind":{"const":"text"},"text":{"type":"string"}},"required":["kind","text"]},
      {"type":"object","properties":{"kind":{"const":"point"},"x":{"type":"number"},"y":{"type":"number"}},"required":["kind","x","y"]},
      {"type":"object","additionalProperties":{"type":"integer"}}]})"},
    {"any JSON", "true"}};

std::shared_ptr<const Vocabulary> synthetic() {
  std::mt19937_64 random(1);
  std::vector<std::string> tokens = {""};
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(std::string(1, static_cast<char>(byte)));
  static constexpr const char* kPieces[] = {"\"", "\":", "\",", "{\"", "}",  "]", ", ", " ",
                                            "  ", "\n",  "\\n", "0",   "17", "e", "_"};
  while (tokens.size() < kVocabulary) {
    std::string token = random() % 2 == 0 ? " " : "";
    const uint64_t kind = random() % 12, length = 2 + random() % 7;
    while (token.size() < length) {
      if (kind == 0)
        token += kPieces[random() % std::size(kPieces)];
      else if (kind < 8)
        token += static_cast<char>('a' + random() % 26);
      else
        (token += static_cast<char>(0xD0 + random() % 2)) += static_cast<char>(0x80 + random() % 64);
    }
    tokens.push_back(std::move(token));
  }
  return std::make_shared<const Vocabulary>(std::move(tokens), std::vector<TokenId>{0});
}

std::shared_ptr<const Vocabulary> of_file(const char* path) {
  const auto tokenizer = text::Tokenizer::open(path);
  std::vector<TokenId> ends;
  for (const char* name : {"<|eot|>", "<|eom|>"})
    if (const auto id = tokenizer->special(name)) ends.push_back(*id);
  return Vocabulary::of(*tokenizer, ends, static_cast<size_t>(tokenizer->vocab_size()));
}

// Times of one text of at most 400 tokens; long tokens are as likely as a model makes them: mostly letters and closers.
void draw_text(const CompiledGrammar& grammar, std::mt19937_64& random, std::vector<double>& times) {
  GrammarState state = grammar.start();
  std::vector<uint64_t> mask(grammar.vocabulary().mask_words());
  for (int count = 0; count < 400 && !state.is_finished(); ++count) {
    const auto start = Clock::now();
    state.mask(mask);
    const auto masked = Clock::now();
    std::vector<TokenId> choices;
    for (size_t w = 0; w < mask.size(); ++w)
      for (uint64_t word = mask[w]; word != 0; word &= word - 1)
        choices.push_back(static_cast<TokenId>(w * 64 + static_cast<size_t>(__builtin_ctzll(word))));
    PUNA_CHECK(!choices.empty(), "an empty mask");
    TokenId token = choices[random() % choices.size()];
    if (random() % 8 == 0)  // strings end, now and then
      for (const TokenId other : choices)
        if (grammar.vocabulary().bytes(other) == "\"") token = other;
    const auto taking = Clock::now();
    PUNA_CHECK(state.accept(token), "a token of the mask is refused");
    times.push_back(microseconds(masked - start) + microseconds(Clock::now() - taking));
  }
}

void print_times(const char* name, const char* when, double compile_ms, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double share) {
    return times[static_cast<size_t>(share * static_cast<double>(times.size() - 1))];
  };
  fmt::print("{:<10} {:<6} {:>10.1f} {:>7} {:>8.1f} {:>8.1f} {:>8.1f} {:>9.1f}\n", name, when, compile_ms, times.size(),
             at(0), at(0.5), at(0.99), at(1));
}

int bench(const char* tokenizer) {
  const auto start = Clock::now();
  const auto vocabulary = tokenizer ? of_file(tokenizer) : synthetic();
  fmt::print("{} tokens, {} nodes; vocabulary {:.0f} ms\n", vocabulary->size(), vocabulary->num_nodes(),
             microseconds(Clock::now() - start) / 1000);
  fmt::print("{:<10} {:<6} {:>10} {:>7} {:>8} {:>8} {:>8} {:>9}\n", "schema", "", "compile ms", "masks", "min us",
             "median", "p99", "max");
  for (const Example& example : kExamples) {
    const auto begin = Clock::now();
    const auto grammar = CompiledGrammar::compile(
        read_json_schema(parse_ordered_json(example.schema, "bench"), example.name), vocabulary);
    const double compile_ms = microseconds(Clock::now() - begin) / 1000;
    std::mt19937_64 random(3);
    for (const char* when : {"first", "again"}) {
      std::vector<double> times;
      for (int text = 0; text < 20; ++text) draw_text(*grammar, random, times);
      print_times(example.name, when, compile_ms, std::move(times));
    }
  }
  return 0;
}

}  // namespace
}  // namespace puna::grammar

int main(int argc, char** argv) {
  try {
    return puna::grammar::bench(argc > 1 ? argv[1] : nullptr);
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
