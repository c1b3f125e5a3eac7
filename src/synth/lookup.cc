// Texts with facts and a question about one of them, whose answer repeats the sentence; and texts to copy.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <set>
#include <string>
#include <vector>

#include "synth/maker.h"
#include "synth/words.h"

namespace puna::synth {
namespace {

constexpr double kCrowdedTexts = 0.35;
constexpr double kFewWords = 0.5;

/// {s} is what the fact is about, {v} what it says, {t} a thing or animal that belongs to the relation.
struct Relation {
  std::string_view statement;
  std::vector<std::string_view> questions;
  std::string (*subject)(Random&);
  std::string (*value)(Random&);
  std::string (*thing)(Random&);
  double more = 0;  ///< share of the training facts that are of this relation because it is hard
};

std::string nothing(Random&) { return {}; }
std::string thing(Random& random) { return std::string(random.pick(kThings)); }
std::string animal(Random& random) { return std::string(random.pick(kAnimals)); }
std::string building(Random& random) { return std::string(random.pick(kBuildings)); }
std::string colour(Random& random) { return std::string(random.pick(kWordColours)); }
std::string room(Random& random) { return std::string(random.pick(kRooms)); }
std::string job(Random& random) { return std::string(random.pick(kJobs)); }
std::string food(Random& random) { return std::string(random.pick(kFoods)); }
std::string day(Random& random) { return std::string(random.pick(kDays)); }
std::string age(Random& random) { return std::to_string(random.between(2, 99)); }
std::string price(Random& random) { return std::to_string(random.between(2, 999)); }
std::string year(Random& random) { return std::to_string(random.between(1200, 2020)); }

const std::vector<Relation>& relations() {
  static const std::vector<Relation> kRelations = {
      {"{s} lives in {v}.",
       {"Where does {s} live?", "In which town does {s} live?", "What is the home town of {s}?",
        "Where is the home of {s}?"},
       person,
       town,
       nothing},
      {"The code of {s} is {v}.",
       {"What is the code of {s}?", "What is {s}'s code?", "Which code does {s} have?", "Tell me the code of {s}."},
       person,
       code,
       nothing},
      {"{s} is {v} years old.",
       {"How old is {s}?", "What is the age of {s}?", "What age is {s}?", "How many years old is {s}?"},
       person,
       age,
       nothing},
      {"{s} works as a {v}.",
       {"What is the job of {s}?", "What does {s} work as?", "What work does {s} do?", "Which job does {s} have?"},
       person,
       job,
       nothing},
      {"{s} likes {v}.",
       {"What does {s} like?", "What does {s} like to eat?", "Which food does {s} like?",
        "What is the favourite food of {s}?"},
       person,
       food,
       nothing},
      {"The {t} of {s} is called {v}.",
       {"What is the {t} of {s} called?", "What is the name of the {t} of {s}?", "How is {s}'s {t} called?",
        "What is {s}'s {t} called?"},
       person,
       made_up_name,
       animal},
      {"The {t} of {s} is {v}.",
       {"What colour is the {t} of {s}?", "What is the colour of the {t} of {s}?", "What color is {s}'s {t}?",
        "Which colour has the {t} of {s}?"},
       person,
       colour,
       thing},
      {"The {s} is in the {v}.",
       {"Where is the {s}?", "In which room is the {s}?", "Where can I find the {s}?", "Where did they put the {s}?"},
       thing,
       room,
       nothing},
      {"The {s} costs {v} coins.",
       {"How much is the {s}?", "How much does the {s} cost?", "What is the price of the {s}?",
        "How many coins does the {s} cost?"},
       thing,
       price,
       nothing},
      {"The {t} of {s} was built in {v}.",
       {"When was the {t} of {s} built?", "In which year was the {t} of {s} built?", "How old is the {t} of {s}?",
        "In what year did they build the {t} of {s}?"},
       town,
       year,
       building,
       0.1},
      {"{s} comes home on {v}.",
       {"When does {s} come home?", "On which day does {s} come home?", "Which day does {s} come home on?",
        "What day does {s} come home?"},
       person,
       day,
       nothing},
      {"The password for {s} is {v}.",
       {"What is the password for {s}?", "What's the password for {s}?", "Which password does {s} have?",
        "Give me the password for {s}."},
       town,
       any_word,
       nothing},
  };
  return kRelations;
}

struct Fact {
  size_t relation = 0;
  Slots slots;
  std::string key() const { return fmt::format("{} {} {}", relation, slots[0].second, slots[2].second); }
  std::string text() const { return fill(relations()[relation].statement, slots); }
  /// Begins as `text` does: whether the text says it is decided where its value would stand.
  std::string not_said() const {
    const std::string_view statement = relations()[relation].statement;
    return fill(statement.substr(0, statement.find(" {v}")), slots) + "... the text does not say.";
  }
};

Fact fact_of(Random& random, size_t which) {
  const Relation& relation = relations()[which];
  std::string subject = relation.subject(random), value = relation.value(random), thing = relation.thing(random);
  return {which, {{"s", std::move(subject)}, {"v", std::move(value)}, {"t", std::move(thing)}}};
}

size_t random_relation(Random& random) {
  return static_cast<size_t>(random.below(static_cast<int64_t>(relations().size())));
}

/// Years are hard: two words find them among others of that building and of that town, and all begin alike.
Fact random_fact(Random& random, Split split) {
  size_t which = random_relation(random);
  for (size_t hard = 0; split == Split::kTrain && hard < relations().size(); ++hard) {
    if (relations()[hard].more > 0 && random.chance(relations()[hard].more)) which = hard;
  }
  return fact_of(random, which);
}

/// Facts of different keys; some share the subject, some the relation, so that neither alone finds the answer.
/// `crowd`: the relations that they are of, as long as those have keys left; empty: all.
Fact new_fact(Random& random, const std::vector<Fact>& facts, std::set<std::string>& keys, Split split,
              const std::vector<size_t>& crowd = {}) {
  constexpr int kTries = 20;  // for one of the crowd
  for (int tries = 0;; ++tries) {
    Fact fact = crowd.empty() || tries >= kTries ? random_fact(random, split) : fact_of(random, random.pick(crowd));
    if (!facts.empty() && random.chance(0.4)) {
      const Fact& other = random.pick(facts);
      if (relations()[other.relation].subject == relations()[fact.relation].subject) fact.slots[0] = other.slots[0];
    }
    if (keys.insert(fact.key()).second) return fact;
  }
}

struct Text {
  std::vector<Fact> facts;
  std::vector<std::string> sentences;
  std::set<std::string> keys;
};

/// Facts and sentences without facts in random order, of about `budget` tokens. Some of the training's have facts of
/// few kinds: then many values begin alike, and what follows is found only by who looks at the subject again.
Text random_text(Random& random, int64_t budget, Split split) {
  Text text;
  std::vector<size_t> crowd;
  if (split == Split::kTrain && random.chance(kCrowdedTexts))
    for (int64_t left = random.between(1, 3); left > 0; --left) crowd.push_back(random_relation(random));
  const double filler_share = random.pick(std::array<double, 3>{0.0, 0.3, 0.6});
  for (int64_t used = 0; used < budget || text.facts.empty();) {
    if (!text.facts.empty() && random.chance(filler_share)) {
      text.sentences.push_back(filler_sentence(random));
    } else {
      text.facts.push_back(new_fact(random, text.facts, text.keys, split, crowd));
      text.sentences.push_back(text.facts.back().text());
    }
    used += rough_tokens(text.sentences.back()) + 1;
  }
  for (size_t i = text.sentences.size(); i > 1; --i) {
    std::swap(text.sentences[i - 1], text.sentences[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  }
  return text;
}

std::string laid_out(Random& random, const std::string& text, const std::string& question) {
  switch (random.below(6)) {
    case 0:
      return fmt::format("{}\n\n{}", text, question);
    case 1:
      return fmt::format("Read this text: {}\n{}", text, question);
    case 2:
      return fmt::format("Text: {}\nQuestion: {}", text, question);
    case 3:
      return fmt::format("{} {}", text, question);
    case 4:
      return fmt::format("{}\n{}", question, text);
    default:
      return fmt::format("{}\n{}", text, question);
  }
}

struct Question {
  std::string question, answer, content;
  bool missing;
};

bool has_thing(const Fact& fact) { return !fact.slots[2].second.empty(); }

/// Whether the text has another value of its kind that begins alike.
bool has_rival(const Fact& fact, const Text& text) {
  return std::any_of(text.facts.begin(), text.facts.end(), [&](const Fact& other) {
    const std::string &mine = fact.slots[1].second, &theirs = other.slots[1].second;
    return other.relation == fact.relation && theirs != mine && theirs[0] == mine[0];
  });
}

/// What the text does not say is asked more often in training: to miss something takes longer to learn. So are facts
/// about a thing of somebody, where both must match, and those whose values have rivals.
Question ask(Random& random, const Text& text, Split split) {
  Fact asked = random.pick(text.facts);
  if (split == Split::kTrain && !(has_thing(asked) || has_rival(asked, text))) asked = random.pick(text.facts);
  const bool missing = random.chance(split == Split::kTrain ? 0.3 : 0.12);
  if (missing) {
    std::set<std::string> keys = text.keys;
    asked = new_fact(random, text.facts, keys, split);
  }
  return {casual(random, fill(random.pick(relations()[asked.relation].questions), asked.slots)),
          missing ? asked.not_said() : asked.text(),
          fmt::format("fact {} {}", asked.key(), missing ? "" : asked.slots[1].second), missing};
}

/// A question about a text; in training often more of them, so that one text teaches more.
Draft fact_question(Random& random, int64_t length, Split split) {
  const Text text = random_text(random, std::max<int64_t>(10, length - 40), split);
  const std::string separator = random.chance(0.25) ? "\n" : " ";
  const std::string whole = fmt::format("{}", fmt::join(text.sentences, separator));
  const Question first = ask(random, text, split);
  Draft draft;
  draft.record = chat({laid_out(random, whole, first.question), first.answer});
  draft.what = first.missing ? "missing" : "fact";
  draft.content = first.content;
  if (split == Split::kHeldOut || random.chance(0.1)) return draft;
  for (int64_t more = random.between(2, std::min<int64_t>(24, 6 + length / 20)); more > 0; --more) {
    const Question next = ask(random, text, split);
    if (split_of(next.content) != split) continue;
    add_turn(draft.record, text::Role::kUser, next.question);
    add_turn(draft.record, text::Role::kAssistant, next.answer);
  }
  return draft;
}

std::string word_or_code(Random& random) { return random.chance(0.15) ? code(random) : any_word(random); }

/// In training some have few different words: then what follows is found only by who looks at more than the word
/// before.
std::vector<std::string> random_words(Random& random, int64_t budget, Split split) {
  std::vector<std::string> few;
  if (split == Split::kTrain && random.chance(kFewWords))
    for (int64_t left = random.between(4, 24); left > 0; --left) few.push_back(word_or_code(random));
  std::vector<std::string> words;
  for (int64_t used = 0; used < budget || words.size() < 2;) {
    words.push_back(few.empty() ? word_or_code(random) : random.pick(few));
    used += rough_tokens(words.back()) + 1;
  }
  return words;
}

Draft copy_words(Random& random, int64_t length, Split split) {
  constexpr std::array<std::string_view, 11> kForms = {"Repeat these words:\n{x}",
                                                       "Repeat this line:\n{x}",
                                                       "Copy this:\n{x}",
                                                       "Repeat these words: {x}",
                                                       "Repeat: {x}",
                                                       "Say this again: {x}",
                                                       "Copy these words: {x}",
                                                       "Write this once more: {x}",
                                                       "Copy this text: {x}",
                                                       "Repeat the following words: {x}",
                                                       "Echo: {x}"};
  const std::vector<std::string> words =
      random_words(random, random.between(4, std::max<int64_t>(8, length / 4)), split);
  const std::string text = fmt::format("{}", fmt::join(words, " "));
  Draft draft;
  draft.record = chat({fill(random.pick(kForms), {{"x", text}}), text});
  draft.what = "repeat";
  draft.content = "copy " + text;
  return draft;
}

Draft copy_line(Random& random, int64_t length, Split split) {
  constexpr std::array<std::string_view, 5> kOrder = {"first", "second", "third", "fourth", "fifth"};
  constexpr std::array<std::string_view, 5> kForms = {"Copy the {n} line:\n{x}", "Copy the {n} line of this text:\n{x}",
                                                      "What is the {n} line?\n{x}", "{x}\nWhat is the {n} line?",
                                                      "{x}\nRepeat the {n} line."};
  const int64_t count = random.between(2, 5);
  std::vector<std::string> lines;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t budget = random.between(4, std::max<int64_t>(8, std::min<int64_t>(24, length / 2 / count)));
    lines.push_back(fmt::format("{}", fmt::join(random_words(random, budget, split), " ")));
  }
  const bool last = random.chance(0.2);
  const auto index = static_cast<size_t>(last ? count - 1 : random.below(count));
  Draft draft;
  draft.record = chat({fill(random.pick(kForms), {{"n", std::string(last ? "last" : kOrder[index])},
                                                  {"x", fmt::format("{}", fmt::join(lines, "\n"))}}),
                       lines[index]});
  draft.what = "line";
  draft.content = "copy " + lines[index];
  return draft;
}

Draft copy_word(Random& random, int64_t length, Split split) {
  const std::vector<std::string> words =
      random_words(random, random.between(4, std::max<int64_t>(8, length / 8)), split);
  const bool first = random.chance(0.5);
  constexpr std::array<std::string_view, 4> kForms = {"What is the {n} word of: {x}", "Copy the {n} word: {x}",
                                                      "Give me the {n} word of this list: {x}",
                                                      "Which word is the {n} one? {x}"};
  const std::string text = fmt::format("{}", fmt::join(words, " "));
  Draft draft;
  draft.record = chat({fill(random.pick(kForms), {{"n", first ? "first" : "last"}, {"x", text}}),
                       first ? words.front() : words.back()});
  draft.what = "word";
  draft.content = "copy " + text;
  return draft;
}

/// Lines come more often in training: to count them takes longer to learn.
Draft copy_once(Random& random, int64_t length, Split split) {
  const double sort = random.unit();
  if (sort < (split == Split::kTrain ? 0.4 : 0.5)) return copy_words(random, length, split);
  return sort < 0.85 ? copy_line(random, length, split) : copy_word(random, length, split);
}

/// In training often several, one after the other: each must be copied from its own place.
Draft copies(Random& random, int64_t length, Split split) {
  const bool several = split == Split::kTrain && random.chance(0.7);
  if (!several) return copy_once(random, length, split);
  const int64_t count = random.between(2, 5);
  Draft draft = copy_once(random, length / 2, split);
  for (int64_t i = 1; i < count; ++i) {
    Draft next = copy_once(random, length / 2, split);
    if (split_of(next.content) != split) continue;
    for (text::Message& message : next.record.messages) draft.record.messages.push_back(std::move(message));
  }
  return draft;
}

class Lookup : public Maker {
 public:
  explicit Lookup(int64_t length) : length_(length) {}
  Draft make(Random& random, Split split, int64_t) const override {
    const int64_t length = random.between(length_ / 4, length_);
    return random.chance(split == Split::kTrain ? 0.66 : 0.72) ? fact_question(random, length, split)
                                                               : copies(random, length, split);
  }

 private:
  int64_t length_;
};

/// Words, and the same words again: nothing but the text itself says what comes next.
class Repeats : public Maker {
 public:
  explicit Repeats(int64_t length) : length_(length) {}
  Draft make(Random& random, Split split, int64_t) const override {
    const int64_t times = random.between(2, 4), length = random.between(length_ / 4, length_);
    const std::string once = fmt::format("{}", fmt::join(random_words(random, length / times, split), " "));
    std::string text = once;
    for (int64_t i = 1; i < times; ++i) text += (random.chance(0.5) ? "\n" : " ") + once;
    Draft draft;
    add_turn(draft.record, text::Role::kUser, text);
    draft.what = "repeats";
    draft.content = "copy " + once;
    return draft;
  }

 private:
  int64_t length_;
};

}  // namespace

std::unique_ptr<Maker> make_lookup(int64_t length) { return std::make_unique<Lookup>(length); }
std::unique_ptr<Maker> make_repeats(int64_t length) { return std::make_unique<Repeats>(length); }

}  // namespace puna::synth
