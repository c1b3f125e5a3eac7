#include "synth/frames.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <sstream>
#include <utility>
#include <vector>

#include "synth/maker.h"

namespace puna::synth {
namespace {

constexpr std::array<std::string_view, 22> kTaskFrames = {
    "How do I {x}?",
    "How do I {x}?",
    "How can I {x}?",
    "How to {x}?",
    "How would I {x}?",
    "How do you {x}?",
    "How does one {x}?",
    "What is the command to {x}?",
    "Which command do I use to {x}?",
    "I want to {x}.",
    "I want to {x}. What do I do?",
    "I would like to {x}.",
    "Show me how to {x}.",
    "Tell me how to {x}.",
    "What do I type to {x}?",
    "What should I run to {x}?",
    "Is there a way to {x}?",
    "Explain how to {x}.",
    "What must I do to {x}?",
    "I need to {x}.",
    "Can I {x}?",
    "Help me {x}.",
};
constexpr std::array<std::string_view, 14> kThingFrames = {
    "What is {x}?",
    "What is {x}?",
    "What does {x} do?",
    "Tell me about {x}.",
    "Explain {x}.",
    "What is {x} for?",
    "What's {x}?",
    "Can you explain {x}?",
    "How does {x} work?",
    "Say something about {x}.",
    "What do you know about {x}?",
    "What does {x} mean?",
    "Describe {x} to me.",
    "When do I need {x}?",
};

/// Words that may stand for each other; each change is made rarely.
const std::vector<std::vector<std::string_view>>& equal_words() {
  static const std::vector<std::vector<std::string_view>> kEqual = {
      {"picture", "image", "photo"},
      {"pictures", "images", "photos"},
      {"start", "launch", "begin"},
      {"show", "display", "print"},
      {"make", "create"},
      {"use", "apply"},
      {"quickly", "fast"},
      {"big", "large"},
      {"stop", "end", "quit"},
      {"computer", "machine", "PC"},
      {"folder", "directory"},
      {"want", "wish", "need"},
      {"give", "hand"},
      {"look at", "view"},
      {"need", "require"},
      {"write", "type"},
      {"fix", "repair", "mend"},
      {"check", "verify"},
  };
  return kEqual;
}

constexpr std::array<std::pair<std::string_view, std::string_view>, 10> kContractions = {{{"What is ", "What's "},
                                                                                          {"what is ", "what's "},
                                                                                          {"I would ", "I'd "},
                                                                                          {" do not ", " don't "},
                                                                                          {" cannot ", " can't "},
                                                                                          {"I am ", "I'm "},
                                                                                          {"Where is ", "Where's "},
                                                                                          {" is not ", " isn't "},
                                                                                          {"Who is ", "Who's "},
                                                                                          {"You are ", "You're "}}};

bool word_at(std::string_view text, size_t at, std::string_view word) {
  const auto letter = [&](size_t i) {
    return i < text.size() && std::isalpha(static_cast<unsigned char>(text[i])) != 0;
  };
  return text.substr(at, word.size()) == word && !(at > 0 && letter(at - 1)) && !letter(at + word.size());
}

void swap_words(Random& random, std::string& question) {
  for (const auto& group : equal_words()) {
    for (const std::string_view word : group) {
      const size_t at = question.find(word);
      if (at == std::string::npos || !word_at(question, at, word) || !random.chance(0.15)) continue;
      question.replace(at, word.size(), random.pick(group));
      break;
    }
  }
}

bool has_digit(std::string_view word) {
  return std::any_of(word.begin(), word.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
}

/// Words left out, or in another order: what is asked follows from the words that remain.
void thin_out(Random& random, std::string& question) {
  std::istringstream stream(question);
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(std::move(word));
  if (random.chance(0.3)) {
    std::vector<std::string> kept;
    for (std::string& word : words)
      if (has_digit(word) || !random.chance(0.2)) kept.push_back(std::move(word));
    if (kept.size() < 2) return;
    words = std::move(kept);
  }
  if (random.chance(0.15)) {
    for (size_t left = words.size(); left > 1; --left)
      std::swap(words[left - 1], words[static_cast<size_t>(random.below(static_cast<int64_t>(left)))]);
  }
  question = fmt::format("{}", fmt::join(words, " "));
}

}  // namespace

size_t num_task_frames() { return kTaskFrames.size(); }
size_t num_thing_frames() { return kThingFrames.size(); }
std::string task_in_frame(size_t frame, std::string_view task) {
  return fill(kTaskFrames[frame], {{"x", std::string(task)}});
}
std::string thing_in_frame(size_t frame, std::string_view thing) {
  return fill(kThingFrames[frame], {{"x", std::string(thing)}});
}

std::string ask_for_task(Random& random, std::string_view task) {
  return task_in_frame(static_cast<size_t>(random.below(static_cast<int64_t>(num_task_frames()))), task);
}
std::string ask_for_thing(Random& random, std::string_view thing) {
  return thing_in_frame(static_cast<size_t>(random.below(static_cast<int64_t>(num_thing_frames()))), thing);
}

std::string reworded(Random& random, std::string question) {
  for (const auto& [full, shorter] : kContractions) {
    const size_t at = question.find(full);
    if (at != std::string::npos && random.chance(0.2)) question.replace(at, full.size(), shorter);
  }
  swap_words(random, question);
  thin_out(random, question);
  question = casual(random, std::move(question));
  if (random.chance(0.08)) question = mistyped(random, std::move(question));
  return question;
}

std::string normalised(std::string_view question) {
  std::string out;
  for (const char c : question) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0) {
      out += static_cast<char>(std::tolower(byte));
    } else if (c != '\'' && !out.empty() && out.back() != ' ') {
      out += ' ';
    }
  }
  while (out.ends_with(' ')) out.pop_back();
  return out;
}

}  // namespace puna::synth
