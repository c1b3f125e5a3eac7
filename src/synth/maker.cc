#include "synth/maker.h"

#include <array>
#include <cctype>

#include "base/error.h"

namespace puna::synth {
namespace {

constexpr uint64_t kHeldOutOneIn = 10;

bool is_small_word(const std::string& text, size_t begin, size_t end) {
  for (size_t i = begin; i < end; ++i) {
    if (text[i] < 'a' || text[i] > 'z') return false;
  }
  return end - begin >= 5;
}

}  // namespace

Split split_of(std::string_view content) {
  return content_hash(content) % kHeldOutOneIn == 0 ? Split::kHeldOut : Split::kTrain;
}

Draft draw(const Maker& maker, Random& random, Split split, int64_t number) {
  for (int attempt = 0; attempt < 10'000; ++attempt) {
    Draft draft = maker.make(random, split, number);
    if (draft.content.empty() || split_of(draft.content) == split) return draft;
  }
  PUNA_CHECK(false, "no content of the split in 10,000 draws; record {}", number);
  return {};
}

void add_turn(data::Record& record, text::Role role, std::string text, int64_t image) {
  text::Message message;
  message.role = role;
  if (image >= 0) message.parts.emplace_back(text::ImagePart{static_cast<size_t>(image)});
  message.parts.emplace_back(text::TextPart{std::move(text)});
  record.messages.push_back(std::move(message));
}

data::Record chat(std::initializer_list<std::string> turns) {
  data::Record record;
  record.kind = data::Record::Kind::kChat;
  for (const std::string& turn : turns) {
    add_turn(record, record.messages.size() % 2 == 0 ? text::Role::kUser : text::Role::kAssistant, turn);
  }
  return record;
}

std::string fill(std::string_view form, const Slots& slots) {
  std::string out;
  for (size_t i = 0; i < form.size();) {
    const size_t close = form[i] == '{' ? form.find('}', i) : std::string_view::npos;
    if (close == std::string_view::npos) {
      out += form[i++];
      continue;
    }
    const std::string_view name = form.substr(i + 1, close - i - 1);
    const std::string* value = nullptr;
    for (const auto& [key, text] : slots) {
      if (key == name) value = &text;
    }
    PUNA_CHECK(value != nullptr, "no value for {{{}}} in '{}'", name, form);
    out += *value;
    i = close + 1;
  }
  return out;
}

std::string casual(Random& random, std::string question) {
  static constexpr std::array<std::string_view, 8> kBefore = {
      "Please, ", "Hi, ", "Hello, ", "Hey, ", "So, ", "Ok, ", "Quick question: ", "Please tell me: "};
  static constexpr std::array<std::string_view, 4> kAfter = {", please", " please", ", thanks", " thanks"};
  const auto lower_first = [&](std::string& text) {
    const bool one_capital = text.size() > 1 && std::isupper(static_cast<unsigned char>(text[0])) != 0 &&
                             std::isupper(static_cast<unsigned char>(text[1])) == 0;
    const bool is_i = text.starts_with("I ") || text.starts_with("I'");
    if (one_capital && !is_i) text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
  };
  if (random.chance(0.12)) {
    const std::string_view before = random.pick(kBefore);
    if (random.chance(0.7)) lower_first(question);
    question = std::string(before) + question;
  }
  const bool has_end = question.ends_with('?') || question.ends_with('.');
  if (has_end && random.chance(0.06)) question.insert(question.size() - 1, random.pick(kAfter));
  if (has_end && random.chance(0.2)) question.pop_back();
  if (random.chance(0.2)) lower_first(question);
  return question;
}

std::string mistyped(Random& random, std::string question) {
  std::vector<std::pair<size_t, size_t>> words;
  for (size_t begin = 0; begin < question.size();) {
    const size_t end = std::min(question.find(' ', begin), question.size());
    if (is_small_word(question, begin, end)) words.emplace_back(begin, end);
    begin = end + 1;
  }
  if (words.empty()) return question;
  const auto [begin, end] = random.pick(words);
  const auto at = static_cast<size_t>(random.between(static_cast<int64_t>(begin) + 1, static_cast<int64_t>(end) - 2));
  switch (random.below(3)) {
    case 0:
      std::swap(question[at], question[at + 1]);
      break;
    case 1:
      question.erase(at, 1);
      break;
    default:
      question.insert(at, 1, question[at]);
      break;
  }
  return question;
}

}  // namespace puna::synth
