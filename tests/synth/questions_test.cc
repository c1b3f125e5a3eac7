// The hand-written questions: enough of them, no held-out one among those trained on; files with mistakes are refused.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <iterator>
#include <map>
#include <set>
#include <sstream>

#include "base/error.h"
#include "io/file.h"
#include "synth/frames.h"
#include "synth/maker.h"
#include "synth/question_file.h"
#include "tests/synth/support.h"

namespace puna::synth {
namespace {

using testing::HasSubstr;

const std::string kRecipes = std::string(PUNA_SOURCE_DIR) + "/recipes/demo";

std::set<std::string> training_questions(const PunaFact& fact) {
  std::set<std::string> all;
  for (const std::string& question : fact.questions) all.insert(normalised(question));
  for (const std::string& task : fact.tasks) {
    for (size_t i = 0; i < num_task_frames(); ++i) all.insert(normalised(task_in_frame(i, task)));
  }
  for (const std::string& thing : fact.things) {
    for (size_t i = 0; i < num_thing_frames(); ++i) all.insert(normalised(thing_in_frame(i, thing)));
  }
  return all;
}

TEST(Facts, AreEnoughAndHeldOutOnesAreNotTrainedOn) {
  const std::vector<PunaFact> facts = read_facts(kRecipes + "/facts.jsonl");
  EXPECT_GE(facts.size(), 70U);
  std::set<std::string> train;
  for (const PunaFact& fact : facts) {
    const std::set<std::string> questions = training_questions(fact);
    EXPECT_GE(questions.size(), 12U) << fact.id;
    train.insert(questions.begin(), questions.end());
    for (const std::string& string : fact.facts) EXPECT_THAT(fact.answer, HasSubstr(string)) << fact.id;
    EXPECT_LE(fact.answer.size(), 130U) << fact.id;
  }
  std::set<std::string> held_out;
  for (const PunaFact& fact : facts) {
    EXPECT_GE(fact.held_out.size(), 2U) << fact.id;
    for (const std::string& question : fact.held_out) {
      EXPECT_FALSE(train.contains(normalised(question))) << question;
      EXPECT_TRUE(held_out.insert(normalised(question)).second) << question;
    }
  }
}

std::set<std::string> words_of(const std::string& question) {
  std::istringstream in(normalised(question));
  return {std::istream_iterator<std::string>(in), {}};
}

/// Held-out questions are put in other words: of the words of one and of any question that is listed, less than half
/// are common to both.
TEST(Facts, HeldOutQuestionsAreNotNearTrainingQuestions) {
  std::vector<std::set<std::string>> train;
  const std::vector<PunaFact> facts = read_facts(kRecipes + "/facts.jsonl");
  for (const PunaFact& fact : facts) {
    for (const std::string& question : fact.questions) train.push_back(words_of(question));
  }
  for (const PunaFact& fact : facts) {
    for (const std::string& question : fact.held_out) {
      const std::set<std::string> words = words_of(question);
      for (const std::set<std::string>& other : train) {
        size_t common = 0;
        for (const std::string& word : other) common += words.count(word);
        EXPECT_LT(2 * common, words.size() + other.size() - common) << question;
      }
    }
  }
}

/// The same for what is in fact generated: rewording must not lead to a held-out question.
TEST(Facts, GeneratedTrainingQuestionsAreNotHeldOut) {
  std::set<std::string> held_out;
  for (const char* kind : {"questions", "unknown"}) {
    for (const data::Record& record : records_of(options_of(kind, 10'000, Split::kHeldOut))) {
      held_out.insert(normalised(text_of(record.messages[0])));
    }
  }
  for (const char* kind : {"questions", "unknown", "conversations"}) {
    for (const data::Record& record : records_of(options_of(kind, 30'000))) {
      for (const text::Message& message : record.messages) {
        EXPECT_FALSE(held_out.contains(normalised(text_of(message)))) << text_of(message);
      }
    }
  }
}

TEST(Facts, OneQuestionHasOneAnswer) {
  std::map<std::string, std::string> answers;
  for (const PunaFact& fact : read_facts(kRecipes + "/facts.jsonl")) {
    for (const std::string& question : fact.questions) {
      const auto [at, is_new] = answers.emplace(question, fact.id);
      EXPECT_TRUE(is_new || at->second == fact.id) << question << ": " << at->second << ", " << fact.id;
    }
  }
  const UnknownQuestions unknown = read_unknown(kRecipes + "/unknown.jsonl");
  for (const auto& list : {unknown.questions, unknown.held_out}) {
    for (const std::string& question : list) EXPECT_FALSE(answers.contains(question)) << question;
  }
}

/// As words of its own: no letter or digit goes on at its ends.
bool occurs(const std::string& string, const std::string& answer) {
  const auto goes_on = [&](size_t at) {
    return at < answer.size() && std::isalnum(static_cast<unsigned char>(answer[at])) != 0;
  };
  for (size_t at = answer.find(string); at != std::string::npos; at = answer.find(string, at + 1)) {
    if (!(at > 0 && goes_on(at - 1)) && !goes_on(at + string.size())) return true;
  }
  return false;
}

/// Otherwise the answer to another question would count as right.
TEST(Facts, NoOtherAnswerHoldsTheStringsOfAFact) {
  const std::vector<PunaFact> facts = read_facts(kRecipes + "/facts.jsonl");
  std::vector<std::string> answers = read_unknown(kRecipes + "/unknown.jsonl").answers;
  for (const PunaFact& fact : facts) answers.push_back(fact.answer);
  for (const PunaFact& fact : facts) {
    int holding = 0;
    for (const std::string& answer : answers) {
      bool all = true;
      for (const std::string& string : fact.facts) all = all && occurs(string, answer);
      holding += all ? 1 : 0;
    }
    EXPECT_EQ(holding, 1) << fact.id;
  }
}

TEST(Unknown, AreEnoughAndSayThatTheyAreNotKnown) {
  const UnknownQuestions unknown = read_unknown(kRecipes + "/unknown.jsonl");
  EXPECT_GE(unknown.questions.size(), 300U);
  EXPECT_GE(unknown.held_out.size(), 100U);
  for (const std::string& answer : unknown.answers) EXPECT_THAT(answer, HasSubstr("do not know"));
}

TEST(Frames, RewordingKeepsNumbersAndChangesSome) {
  Random random(3);
  int changed = 0;
  for (int i = 0; i < 2'000; ++i) {
    const std::string question = "How do I print the picture 347?";
    const std::string other = reworded(random, question);
    EXPECT_THAT(other, HasSubstr("347"));
    EXPECT_LT(other.size(), question.size() + 30);
    changed += other == question ? 0 : 1;
  }
  EXPECT_GT(changed, 600);
  EXPECT_LT(changed, 1'800);
}

TEST(Frames, NormalisedForgetsCaseAndMarks) {
  EXPECT_EQ(normalised("What's  THIS -- 12?"), "whats this 12");
  EXPECT_EQ(normalised("./puna train!"), "puna train");
}

class QuestionFiles : public testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::string error_of(const std::string& text, bool facts) {
    const std::filesystem::path file = folder_ / "file.jsonl";
    io::write_file(file, text);
    try {
      facts ? void(read_facts(file)) : void(read_unknown(file));
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  const std::filesystem::path folder_ = std::filesystem::path(testing::TempDir()) / "puna_question_files";
};

TEST_F(QuestionFiles, FactsWithMistakesAreRefused) {
  const std::string good = R"({"id":"a","answer":"b","facts":["b"],"questions":["q"],"held_out":["h"]})";
  EXPECT_EQ(error_of(good, true), "no error");
  EXPECT_THAT(error_of("{]", true), HasSubstr("file.jsonl:1"));
  EXPECT_THAT(error_of("[1]", true), HasSubstr("not an object"));
  EXPECT_THAT(error_of(good + "\n" + good, true), HasSubstr("two facts with the id 'a'"));
  EXPECT_THAT(error_of(R"({"id":"a","anwser":"b"})", true), HasSubstr("did you mean 'answer'?"));
  EXPECT_THAT(error_of(R"({"id":"a"})", true), HasSubstr("'answer' is missing"));
  EXPECT_THAT(error_of(R"({"id":"a","answer":"b","facts":[],"questions":["q"],"held_out":["h"]})", true),
              HasSubstr("'facts'"));
  EXPECT_THAT(error_of(R"({"id":"a","answer":7})", true), HasSubstr("wants text"));
  EXPECT_THAT(error_of("\n", true), HasSubstr("no facts"));
}

TEST_F(QuestionFiles, UnknownQuestionsWithMistakesAreRefused) {
  EXPECT_THAT(error_of(R"({"question":"Where is {town}?"})", false), HasSubstr("the slot 'town'"));
  EXPECT_THAT(error_of(R"({"question":"Where is {town?"})", false), HasSubstr("without its '}'"));
  EXPECT_THAT(error_of(R"({"slot":"town"})", false), HasSubstr("'values' is missing"));
  EXPECT_THAT(error_of(R"({"answer":"no","question":"q"})", false), HasSubstr("one key"));
  EXPECT_THAT(error_of(R"({"answer":"no"})", false), HasSubstr("no line with"));
  EXPECT_THAT(error_of(R"({"questoin":"q"})", false), HasSubstr("did you mean 'question'?"));
}

}  // namespace
}  // namespace puna::synth
