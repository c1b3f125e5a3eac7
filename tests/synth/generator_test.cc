// Generators as sources of records: purity, splits, sizes, errors.
#include "synth/generator.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <regex>
#include <set>
#include <span>

#include "base/error.h"
#include "io/hash.h"
#include "synth/words.h"
#include "tests/synth/support.h"

namespace puna::synth {
namespace {

using testing::HasSubstr;

std::string printed(const data::Record& record) {
  std::string out = record.id;
  for (const text::Message& message : record.messages) out.append("\n").append(text_of(message));
  for (const std::string& image : record.images) out += image;
  return out;
}

class Kinds : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, Kinds, testing::ValuesIn(generator_names()));

TEST_P(Kinds, RecordsDependOnKindSeedAndNumberAlone) {
  const GeneratorOptions options = options_of(GetParam(), 40);
  GeneratorOptions more = options, other_seed = options;
  more.documents = 60;
  other_seed.seed = 8;
  const auto first = records_of(options), second = records_of(more), third = records_of(other_seed);
  ASSERT_EQ(first.size(), 40U);
  ASSERT_EQ(second.size(), 60U);
  int equal = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(printed(first[i]), printed(second[i]));
    equal += printed(first[i]) == printed(third[i]) ? 1 : 0;
  }
  EXPECT_TRUE(equal < 8 || GetParam() == "packages") << equal;
}

TEST_P(Kinds, ChatsAlternateAndImagesAreUsed) {
  for (const data::Record& record : records_of(options_of(GetParam(), 300))) {
    if (GetParam() == "retrieval" || GetParam() == "packages" || GetParam() == "repeats") {
      EXPECT_EQ(record.kind, data::Record::Kind::kDocument);
      continue;
    }
    EXPECT_EQ(record.kind, data::Record::Kind::kChat);
    size_t images = 0;
    ASSERT_EQ(record.messages.size() % 2, 0U);
    for (size_t i = 0; i < record.messages.size(); ++i) {
      EXPECT_EQ(record.messages[i].role, i % 2 == 0 ? text::Role::kUser : text::Role::kAssistant);
      EXPECT_FALSE(text_of(record.messages[i]).empty());
      for (const text::Part& part : record.messages[i].parts) {
        const auto* image = std::get_if<text::ImagePart>(&part);
        if (image == nullptr) continue;
        EXPECT_EQ(image->image, images);
        ++images;
      }
    }
    EXPECT_EQ(images, record.images.size()) << record.id;
  }
}

TEST_P(Kinds, FingerprintTellsOptionsApartAndProgressEnds) {
  const GeneratorOptions options = options_of(GetParam(), 5);
  GeneratorOptions other = options;
  other.seed += 1;
  const auto source = open_generator(options);
  EXPECT_EQ(source->fingerprint(), open_generator(options)->fingerprint());
  EXPECT_NE(source->fingerprint(), open_generator(other)->fingerprint());
  other = options;
  other.split = Split::kHeldOut;
  EXPECT_NE(source->fingerprint(), open_generator(other)->fingerprint());
  EXPECT_EQ(source->progress(), 0);
  while (source->next()) {
  }
  EXPECT_EQ(source->progress(), 1);
}

TEST(Generator, RecordsAreTheSameOnEveryMachine) {
  GeneratorOptions options = options_of("arithmetic", 1);
  options.seed = 1;
  const data::Record record = records_of(options)[0];
  EXPECT_EQ(record.id, "arithmetic/subtract/0");
  EXPECT_EQ(text_of(record.messages[0]), "Ok, compute 7 - 5");
  EXPECT_EQ(text_of(record.messages[1]), "7 - 5: ones 7>5: ones 7-5=2. The answer is 2.");
}

// Datasets are known by the fingerprint: who changes the records of a kind raises kForm, and writes the new lines here.
TEST(Generator, OtherRecordsHaveAnotherFingerprint) {
  std::map<std::string, std::string> seen;
  for (const char* kind : {"arithmetic", "lookup", "pictures", "repeats", "retrieval", "shapes"}) {
    std::string text;
    for (const data::Record& record : records_of(options_of(kind, 100))) {
      text += record.id;
      for (const text::Message& message : record.messages) text += text_of(message);
    }
    seen[open_generator(options_of(kind, 100))->fingerprint()] = io::hash_of(std::as_bytes(std::span(text)));
  }
  const auto of = [](const char* kind) {
    return fmt::format("generated {} documents=100 seed=7 split=train length=0 form=8 ", kind);
  };
  const std::map<std::string, std::string> known = {
      {of("arithmetic"), "c1a9cad8fe6a804ebc2586c700d2545b"}, {of("lookup"), "7cb415e764b31b6981b4fea20503bbc5"},
      {of("pictures"), "f7cef1a6463dac44d24fc5f12dea8ea7"},   {of("repeats"), "d87b03bbb37f7754f5e1cf45e698849a"},
      {of("retrieval"), "2bfb85a936c29f7c9312adc817e76b23"},  {of("shapes"), "d87a3a2143d77c86189557c9c369de9b"}};
  EXPECT_EQ(seen, known);
}

/// What a record asks about, read from its text alone.
std::string subject(const std::string& kind, const data::Record& record) {
  const std::string question = text_of(record.messages[0]), answer = text_of(record.messages.back());
  if (kind == "arithmetic") {
    const std::regex number("[0-9]+");
    std::multiset<std::string> numbers;
    for (std::sregex_iterator it(question.begin(), question.end(), number), end; it != end; ++it)
      numbers.insert(it->str());
    return fmt::format("{} {}", *numbers.begin(), *numbers.rbegin());
  }
  if (kind == "lookup") return sort_of(record) == "missing" || sort_of(record) == "word" ? question : answer;
  return question;
}

class Splits : public testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(All, Splits,
                         testing::Values("arithmetic", "lookup", "questions", "unknown", "retrieval", "packages"));

TEST_P(Splits, NothingHeldOutIsInTheTrainingSplit) {
  std::set<std::string> train;
  for (const data::Record& record : records_of(options_of(GetParam(), 20'000)))
    train.insert(subject(GetParam(), record));
  for (const data::Record& record : records_of(options_of(GetParam(), 3'000, Split::kHeldOut))) {
    EXPECT_FALSE(train.contains(subject(GetParam(), record))) << subject(GetParam(), record);
  }
}

TEST(Generator, HeldOutQuestionsComeOnceEach) {
  const auto records = records_of(options_of("questions", 100'000, Split::kHeldOut));
  EXPECT_GE(records.size(), 140U);
  EXPECT_LT(records.size(), 1'000U);
  std::set<std::string> questions;
  for (const data::Record& record : records) EXPECT_TRUE(questions.insert(text_of(record.messages[0])).second);
}

TEST(Generator, LengthIsKept) {
  for (const int64_t length : {64, 256, 1024}) {
    int64_t longest = 0;
    for (const data::Record& record : records_of(options_of("lookup", 200, Split::kTrain, length))) {
      longest =
          std::max(longest, rough_tokens(text_of(record.messages[0])) + rough_tokens(text_of(record.messages[1])));
    }
    EXPECT_LE(longest, length + 24);
    EXPECT_GE(longest, length / 2);
  }
}

TEST(Generator, ShortKindsStayShort) {
  for (const char* kind : {"arithmetic", "questions", "unknown"}) {
    for (const data::Record& record : records_of(options_of(kind, 2'000))) {
      EXPECT_LE(rough_tokens(text_of(record.messages[0])) + rough_tokens(text_of(record.messages[1])), 110)
          << record.id;
    }
  }
}

std::string error_of(const GeneratorOptions& options) {
  try {
    open_generator(options);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST(Generator, BadOptionsAreNamed) {
  EXPECT_THAT(error_of(options_of("arithmatic", 1)), HasSubstr("did you mean 'arithmetic'?"));
  EXPECT_THAT(error_of(options_of("zzzzzzzz", 1)), HasSubstr("there are arithmetic, "));
  EXPECT_THAT(error_of(options_of("lookup", 1, Split::kTrain, 5)), HasSubstr("length 5"));
  EXPECT_THAT(error_of(options_of("lookup", -1)), HasSubstr("-1 documents"));
  GeneratorOptions missing = options_of("questions", 1);
  missing.file = "/nowhere/facts.jsonl";
  EXPECT_THAT(error_of(missing), HasSubstr("/nowhere/facts.jsonl"));
}

}  // namespace
}  // namespace puna::synth
