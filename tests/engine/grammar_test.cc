// Answers under a grammar through the whole engine: many at once, sampled, with guesses, in a cache that is too small.
#include <gtest/gtest.h>

#include <regex>

#include "base/json.h"
#include "engine/engine.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "tests/engine/tiny.h"

namespace puna::engine {
namespace {

using test::alone;
using test::random_tokens;
using test::request_of;

constexpr TokenId kEnd = 0;
constexpr int64_t kVocabSize = 300;

const LoadedModel& tiny() {
  static const LoadedModel loaded = [] {
    LoadedModel model = test::tiny_model({.vocab_size = kVocabSize});
    model.stop_tokens = {kEnd};
    return model;
  }();
  return loaded;
}

// Token 0 ends a text; then all bytes, then longer ones that span the parts of a grammar.
const std::shared_ptr<const grammar::Vocabulary>& words() {
  static const auto vocabulary = [] {
    std::vector<std::string> tokens = {""};
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(std::string(1, static_cast<char>(byte)));
    for (const char* word : {"{\"", "\":", "\": \"", "\",\"", "\", \"", "\"}", "[true", "true,", "false", "null", "12",
                             "], \"", " word", "es, ", "yes", "na", "\xC3\xA9"})
      tokens.emplace_back(word);
    return std::make_shared<const grammar::Vocabulary>(std::move(tokens), std::vector<TokenId>{kEnd}, kVocabSize);
  }();
  return vocabulary;
}

constexpr const char* kSchema = R"({"type": "object",
  "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 10},
                 "size": {"type": "integer", "minimum": -20, "maximum": 1300},
                 "kind": {"enum": ["red", "blue", null]},
                 "parts": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3}},
  "required": ["name", "size", "parts"]})";
constexpr const char* kRules = "root ::= (\"yes\" | \"no\") (\", \" word){1,4} \".\"\nword ::= [a-z]{2,6}\n";

using Compiled = std::shared_ptr<const grammar::CompiledGrammar>;

const Compiled& schema() {
  static const Compiled compiled =
      grammar::CompiledGrammar::compile(grammar::read_json_schema(parse_ordered_json(kSchema, "s"), "s"), words());
  return compiled;
}

const Compiled& rules() {
  static const Compiled compiled = grammar::CompiledGrammar::compile(grammar::read_gbnf(kRules, "g"), words());
  return compiled;
}

std::string text_of(const Generation& generation) {
  std::string text;
  for (const TokenId id : generation.tokens) text += words()->bytes(id);
  return text;
}

void expect_valid(const std::string& text) {
  const Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  ASSERT_TRUE(value.is_object()) << text;
  size_t known = 0;
  for (const char* key : {"name", "size", "parts", "kind"}) known += value.contains(key) ? 1 : 0;
  ASSERT_EQ(known, value.size()) << text;
  ASSERT_TRUE(value.contains("name") && value["name"].is_string() && !value["name"].get<std::string>().empty()) << text;
  ASSERT_TRUE(value.contains("size") && value["size"].is_number_integer()) << text;
  EXPECT_TRUE(value["size"] >= -20 && value["size"] <= 1300) << text;
  ASSERT_TRUE(value.contains("parts") && value["parts"].is_array()) << text;
  EXPECT_TRUE(value["parts"].size() >= 1 && value["parts"].size() <= 3) << text;
  for (const Json& part : value["parts"]) EXPECT_TRUE(part.is_boolean()) << text;
  if (value.contains("kind")) {
    EXPECT_TRUE(value["kind"] == "red" || value["kind"] == "blue" || value["kind"].is_null()) << text;
  }
}

// Half of them of two completions, a third of them free, one in four greedy.
std::vector<Request> requests() {
  std::vector<Request> all;
  for (uint64_t i = 0; i < 9; ++i) {
    all.push_back(request_of(random_tokens(20 + static_cast<int64_t>(i), i), i % 3 == 2 ? 50 : 600));
    Request& request = all.back();
    request.sampling.temperature = i % 4 == 3 ? 0 : 1;
    request.sampling.top_p = 1;
    request.sampling.seed = 10 * i;
    request.completions = i % 2 == 0 ? 2 : 1;
    if (i % 3 != 2) request.grammar = i % 3 == 0 ? schema() : rules();
  }
  return all;
}

EngineOptions small_options() {
  EngineOptions options;
  options.step_tokens = 40;
  options.max_sequences = 12;
  options.context_tokens = 64;
  options.cache_bytes = test::cache_bytes(tiny(), 400);
  return options;
}

const std::vector<std::vector<TokenId>>& expected() {
  static const auto all = [] {
    std::vector<std::vector<TokenId>> tokens;
    for (const Request& request : requests())
      for (int c = 0; c < request.completions; ++c) {
        Request single = request;
        single.sampling.seed += static_cast<uint64_t>(c);
        tokens.push_back(alone(tiny(), single));
      }
    return tokens;
  }();
  return all;
}

void expect_texts(Engine& engine) {
  const std::vector<Request> all = requests();
  std::vector<std::shared_ptr<Ticket>> tickets;
  for (const Request& request : all) tickets.push_back(engine.submit(request));
  const std::regex pattern("(yes|no)(, [a-z]{2,6}){1,4}[.]");
  size_t index = 0;
  for (size_t i = 0; i < all.size(); ++i)
    for (const Generation& one : engine.run(*tickets[i]).completions) {
      EXPECT_EQ(one.tokens, expected()[index++]) << i;
      if (!all[i].grammar) continue;
      const std::string text = text_of(one);
      EXPECT_EQ(one.reason, StopReason::kStopToken) << text;
      if (all[i].grammar == schema())
        expect_valid(text);
      else
        EXPECT_TRUE(std::regex_match(text, pattern)) << text;
    }
  EXPECT_EQ(engine.stats().used_blocks, 0);
}

TEST(GrammarInEngine, AnswersOfManyAtOnceAreValid) {
  Engine engine(tiny(), small_options());
  expect_texts(engine);
}

TEST(GrammarInEngine, GuessesByLookupChangeNothing) {
  EngineOptions options = small_options();
  options.lookup_tokens = 5;
  Engine engine(tiny(), options);
  expect_texts(engine);
  EXPECT_GT(engine.stats().drafted_tokens, 0);
}

// The draft model knows no grammar: most of what it guesses is refused.
TEST(GrammarInEngine, GuessesOfADraftModelChangeNothing) {
  for (const int64_t lookup : {0, 3}) {
    EngineOptions options = small_options();
    options.draft = &tiny();
    options.draft_tokens = 3;
    options.lookup_tokens = lookup;
    Engine engine(tiny(), options);
    expect_texts(engine);
    EXPECT_GT(engine.stats().accepted_tokens, 0);
    EXPECT_LT(engine.stats().accepted_tokens, engine.stats().drafted_tokens);
  }
}

TEST(GrammarInEngine, PreemptedAnswersGoOnWhereTheyStoodInTheGrammar) {
  EngineOptions options = small_options();
  options.cache_bytes = test::cache_bytes(tiny(), 12);
  options.context_tokens = 32;
  for (const int64_t lookup : {0, 3}) {
    options.lookup_tokens = lookup;
    Engine engine(tiny(), options);
    expect_texts(engine);
    EXPECT_GT(engine.stats().preemptions, 0);
  }
}

TEST(GrammarInEngine, AGrammarOfOneTextEndsItWhereNoTokenDoes) {
  LoadedModel endless = test::tiny_model({.vocab_size = kVocabSize});
  std::vector<std::string> tokens;
  for (int id = 0; id < 256; ++id) tokens.push_back(std::string(1, static_cast<char>(id)));
  const auto bytes = std::make_shared<const grammar::Vocabulary>(tokens, std::vector<TokenId>{}, kVocabSize);
  Request request = request_of(random_tokens(9, 1), 100);
  request.grammar = grammar::CompiledGrammar::compile(grammar::read_gbnf("root ::= \"to the end\"", "g"), bytes);
  Engine engine(endless, small_options());
  const Generation result = engine.run(*engine.submit(request)).completions[0];
  EXPECT_EQ(std::string(result.tokens.begin(), result.tokens.end()), "to the end");
  EXPECT_EQ(result.reason, StopReason::kStopToken);
}

}  // namespace
}  // namespace puna::engine
