// Answers of generated questions, checked from their texts alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <regex>
#include <set>
#include <sstream>

#include "tests/synth/support.h"

namespace puna::synth {
namespace {

std::vector<int64_t> numbers_in(const std::string& text) {
  const std::regex number("[0-9]+");
  std::vector<int64_t> numbers;
  for (std::sregex_iterator it(text.begin(), text.end(), number), end; it != end; ++it)
    numbers.push_back(std::stoll(it->str()));
  return numbers;
}

/// The pair in the order of the operation: "subtract 5 from 347" is 347, 5.
std::pair<int64_t, int64_t> operands(const std::string& sort, std::string question) {
  const std::vector<int64_t> n = numbers_in(question);
  EXPECT_EQ(n.size(), 2U) << question;
  for (char& c : question) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  const bool turned =
      sort == "subtract" &&
      std::regex_search(question, std::regex("[0-9] from|away from|[0-9] less than|take [0-9]+ from|when [0-9]+ is")) &&
      question.find("what is left of") == std::string::npos;
  return turned ? std::pair{n[1], n[0]} : std::pair{n[0], n[1]};
}

std::string expected(const std::string& sort, int64_t a, int64_t b) {
  if (sort == "add") return "The answer is " + std::to_string(a + b) + ".";
  if (sort == "subtract") return "The answer is " + std::to_string(a - b) + ".";
  if (sort == "greater") return a > b ? "Yes." : "No.";
  if (sort == "less") return a < b ? "Yes." : "No.";
  if (sort == "equal") return a == b ? "Yes." : "No.";
  if (a == b) return "They are equal.";
  return sort == "larger" ? "The larger is " + std::to_string(std::max(a, b)) + "."
                          : "The smaller is " + std::to_string(std::min(a, b)) + ".";
}

TEST(Arithmetic, ResultsAndEachStepAreRight) {
  const std::regex step("([0-9]+)([-+])([0-9]+)(?:[-+]([01]))?=([0-9]+)"), order(" ([0-9])([<>=])([0-9])[,.:]");
  for (const data::Record& record : records_of(options_of("arithmetic", 20'000))) {
    const std::string question = text_of(record.messages[0]), answer = text_of(record.messages[1]);
    const auto [a, b] = operands(sort_of(record), question);
    EXPECT_TRUE(answer.ends_with(expected(sort_of(record), a, b))) << question << " " << answer;
    for (std::sregex_iterator it(answer.begin(), answer.end(), step), end; it != end; ++it) {
      const int64_t sign = (*it)[2] == "+" ? 1 : -1, carry = (*it)[4].matched ? std::stoll((*it)[4]) : 0;
      EXPECT_EQ(std::stoll((*it)[1]) + sign * (std::stoll((*it)[3]) + carry), std::stoll((*it)[5])) << answer;
    }
    for (std::sregex_iterator it(answer.begin(), answer.end(), order), end; it != end; ++it) {
      const int difference = (*it)[1].str().compare((*it)[3].str());
      EXPECT_EQ((*it)[2], difference < 0 ? "<" : difference > 0 ? ">" : "=") << answer;
    }
  }
}

TEST(Arithmetic, LengthsCarriesAndSignsAreBalanced) {
  std::map<std::string, int> sorts;
  std::map<std::pair<size_t, size_t>, int> lengths;
  int negative = 0, subtractions = 0, carried = 0, additions = 0;
  for (const data::Record& record : records_of(options_of("arithmetic", 9'000))) {
    const std::string sort = sort_of(record), answer = text_of(record.messages[1]);
    ++sorts[sort];
    if (sort == "subtract") {
      ++subtractions;
      negative += answer.find("is -") != std::string::npos ? 1 : 0;
    }
    if (sort != "add") continue;
    ++additions;
    carried += std::regex_search(answer, std::regex("\\+1=")) ? 1 : 0;
    const auto [a, b] = operands(sort, text_of(record.messages[0]));
    ++lengths[{std::to_string(a).size(), std::to_string(b).size()}];
  }
  EXPECT_EQ(sorts.size(), 7U);
  EXPECT_NEAR(sorts["add"], 3000, 300);
  EXPECT_NEAR(sorts["subtract"], 3000, 300);
  EXPECT_NEAR(negative, subtractions / 2, subtractions / 10);
  EXPECT_NEAR(carried, additions * 3 / 5, additions / 10);
  EXPECT_EQ(lengths.size(), 9U);
  for (const auto& [length, count] : lengths) EXPECT_NEAR(count, additions / 9, additions / 20);
}

TEST(Lookup, AnswersStandInTheText) {
  const std::string missing = "... the text does not say.";
  std::map<std::string, int> sorts;
  std::vector<int> depths(4);
  for (const data::Record& record : records_of(options_of("lookup", 8'000))) {
    const std::string sort = sort_of(record), text = text_of(record.messages[0]), answer = text_of(record.messages[1]);
    ++sorts[sort];
    if (sort == "missing") {
      ASSERT_TRUE(answer.ends_with(missing)) << answer;
      const std::string begin = answer.substr(0, answer.size() - missing.size()) + " ";
      for (size_t at = 0; (at = text.find(begin, at)) != std::string::npos; ++at) {
        EXPECT_TRUE(at >= 3 && text.substr(at - 3, 3) == "of ") << text << "\n" << answer;
      }
      continue;
    }
    const size_t at = text.find(answer);
    ASSERT_NE(at, std::string::npos) << text << "\n" << answer;
    if (sort == "fact" && text.size() > 400) ++depths[std::min<size_t>(3, 4 * at / (text.size() - answer.size() + 1))];
  }
  EXPECT_EQ(sorts.size(), 5U);
  EXPECT_NEAR(sorts["missing"], 0.66 * 0.3 * 8'000, 200);
  const int all = depths[0] + depths[1] + depths[2] + depths[3];
  for (const int count : depths) EXPECT_NEAR(count, all / 4, all / 10);
}

/// Another fact with the same subject and relation would make the answer a matter of taste.
TEST(Lookup, FactsHaveOneAnswer) {
  for (const data::Record& record : records_of(options_of("lookup", 1'000, Split::kHeldOut, 1'024))) {
    if (sort_of(record) != "fact") continue;
    const std::string text = text_of(record.messages[0]), fact = text_of(record.messages[1]);
    const size_t verb =
        std::min({fact.find(" lives in "), fact.find(" is called "), fact.find(" costs "), fact.size()});
    if (verb == fact.size()) continue;
    const std::string key = fact.substr(0, fact.find(' ', verb + 4));
    const size_t first = text.find(key);
    EXPECT_EQ(text.find(key, first + 1), std::string::npos) << key << "\n" << text;
  }
}

TEST(Retrieval, QueriesArePairsOfTheLinesBefore) {
  for (const int64_t length : {32, 128, 1'000, 4'096}) {
    for (const data::Record& record : records_of(options_of("retrieval", 100, Split::kTrain, length))) {
      std::vector<std::string> lines;
      std::istringstream in(text_of(record.messages[0]));
      for (std::string line; std::getline(in, line);) lines.push_back(line);
      ASSERT_EQ(static_cast<int64_t>(lines.size()), length / 3);
      const auto queries = lines.end() - std::min<int64_t>(21, length / 6);
      std::map<std::string, std::string> pairs;
      for (auto line = lines.begin(); line != queries; ++line) {
        if (line->starts_with("-- ")) continue;
        EXPECT_TRUE(pairs.emplace(line->substr(0, 2), line->substr(3)).second) << *line;
      }
      EXPECT_EQ(pairs.size(), std::min<size_t>(8, static_cast<size_t>(queries - lines.begin())));
      for (auto line = queries; line != lines.end(); ++line) EXPECT_EQ(pairs[line->substr(0, 2)], line->substr(3));
    }
  }
}

}  // namespace
}  // namespace puna::synth
