// Questions about Puna with their answers, and questions that it does not know the answer to.
#include <fmt/format.h>

#include "io/hash.h"
#include "synth/frames.h"
#include "synth/maker.h"
#include "synth/question_file.h"

namespace puna::synth {
namespace {

struct HeldOut {
  size_t fact;
  std::string question;
};

class Questions : public Maker {
 public:
  explicit Questions(const std::filesystem::path& file) : facts_(read_facts(file)), hash_(io::hash_of_file(file)) {
    for (size_t i = 0; i < facts_.size(); ++i) {
      for (const std::string& question : facts_[i].held_out) held_out_.push_back({i, question});
    }
  }

  int64_t available(Split split) const override {
    return split == Split::kTrain ? -1 : static_cast<int64_t>(held_out_.size());
  }
  std::string fingerprint() const override { return hash_; }

  Draft make(Random& random, Split split, int64_t number) const override {
    Draft draft;
    if (split == Split::kHeldOut) {
      const HeldOut& asked = held_out_[static_cast<size_t>(number) % held_out_.size()];
      draft.record = chat({asked.question, facts_[asked.fact].answer});
      draft.what = facts_[asked.fact].id;
      return draft;
    }
    const PunaFact& fact = random.pick(facts_);
    draft.record = chat({reworded(random, question(random, fact)), fact.answer});
    draft.what = fact.id;
    return draft;
  }

 private:
  /// The plain questions most of the time, where there is a choice.
  static std::string question(Random& random, const PunaFact& fact) {
    const bool framed = !fact.tasks.empty() || !fact.things.empty();
    if (!framed || random.chance(0.75)) return random.pick(fact.questions);
    const auto tasks = static_cast<int64_t>(fact.tasks.size()), things = static_cast<int64_t>(fact.things.size());
    const int64_t chosen = random.below(tasks + things);
    return chosen < tasks ? ask_for_task(random, fact.tasks[static_cast<size_t>(chosen)])
                          : ask_for_thing(random, fact.things[static_cast<size_t>(chosen - tasks)]);
  }

  std::vector<PunaFact> facts_;
  std::vector<HeldOut> held_out_;
  std::string hash_;
};

class Unknown : public Maker {
 public:
  explicit Unknown(const std::filesystem::path& file) : all_(read_unknown(file)), hash_(io::hash_of_file(file)) {}

  int64_t available(Split split) const override {
    return split == Split::kTrain ? -1 : static_cast<int64_t>(all_.held_out.size());
  }
  std::string fingerprint() const override { return hash_; }

  Draft make(Random& random, Split split, int64_t number) const override {
    Draft draft;
    draft.what = "question";
    if (split == Split::kHeldOut) {
      draft.record = chat({all_.held_out[static_cast<size_t>(number) % all_.held_out.size()], all_.answers[0]});
      return draft;
    }
    const double sort = random.unit();
    std::string question;
    if (sort < 0.7) {
      question = filled(random, random.pick(all_.questions));
    } else if (sort < 0.87) {
      question = ask_for_task(random, filled(random, random.pick(all_.tasks)));
    } else {
      question = ask_for_thing(random, filled(random, random.pick(all_.things)));
    }
    draft.record = chat({reworded(random, std::move(question)), random.pick(all_.answers)});
    return draft;
  }

 private:
  /// A value for each {name}; a name that stands twice gets two.
  std::string filled(Random& random, const std::string& form) const {
    std::string out;
    for (size_t i = 0; i < form.size();) {
      if (form[i] != '{') {
        out += form[i++];
        continue;
      }
      const size_t close = form.find('}', i);
      out += random.pick(all_.slots.at(form.substr(i + 1, close - i - 1)));
      i = close + 1;
    }
    return out;
  }

  UnknownQuestions all_;
  std::string hash_;
};

}  // namespace

std::unique_ptr<Maker> make_questions(const std::filesystem::path& file) { return std::make_unique<Questions>(file); }
std::unique_ptr<Maker> make_unknown(const std::filesystem::path& file) { return std::make_unique<Unknown>(file); }

}  // namespace puna::synth
