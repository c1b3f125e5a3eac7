#include "synth/question_file.h"

#include <fmt/format.h>

#include <functional>
#include <set>
#include <string_view>

#include "base/error.h"
#include "base/json.h"
#include "base/suggest.h"
#include "io/file.h"

namespace puna::synth {
namespace {

constexpr int64_t kMaxBytes = 16 << 20;

void for_each_line(const std::filesystem::path& file, const std::function<void(const Json&, const std::string&)>& use) {
  const std::string text = io::read_file(file, kMaxBytes);
  size_t begin = 0;
  for (int number = 1; begin < text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    if (line.empty()) continue;
    const std::string where = fmt::format("{}:{}", file.string(), number);
    const Json json = parse_json(line, where);
    if (!json.is_object()) fail(where, "the line is not an object {{...}}");
    use(json, where);
  }
}

void check_keys(const Json& json, const std::string& where, const std::vector<std::string>& known) {
  for (const auto& [key, value] : json.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string nearest = nearest_name(key, known);
    fail(where, "unknown key '{}'; {}", key,
         nearest.empty() ? fmt::format("known are {}", fmt::join(known, ", "))
                         : fmt::format("did you mean '{}'?", nearest));
  }
}

std::string text_of(const Json& value, const std::string& where, std::string_view key) {
  if (!value.is_string() || value.get_ref<const std::string&>().empty()) fail(where, "'{}' wants text in quotes", key);
  return value.get<std::string>();
}

std::vector<std::string> list_of(const Json& json, const std::string& where, const std::string& key, bool needed) {
  if (!json.contains(key)) {
    if (needed) fail(where, "'{}' is missing", key);
    return {};
  }
  const Json& list = json.at(key);
  if (!list.is_array() || (needed && list.empty())) fail(where, "'{}' wants a list of texts", key);
  std::vector<std::string> out;
  for (const Json& item : list) out.push_back(text_of(item, where, key));
  return out;
}

/// Every {name} must be a slot.
void check_slots(const std::string& question, const UnknownQuestions& all, const std::string& where) {
  for (size_t open = question.find('{'); open != std::string::npos; open = question.find('{', open + 1)) {
    const size_t close = question.find('}', open);
    if (close == std::string::npos) fail(where, "'{}' has a '{{' without its '}}'", question);
    const std::string name = question.substr(open + 1, close - open - 1);
    if (!all.slots.contains(name))
      fail(where, "'{}' names the slot '{}', which no line before it gives", question, name);
  }
}

}  // namespace

std::vector<PunaFact> read_facts(const std::filesystem::path& file) {
  std::vector<PunaFact> facts;
  std::set<std::string> ids;
  for_each_line(file, [&](const Json& json, const std::string& where) {
    check_keys(json, where, {"id", "answer", "facts", "questions", "tasks", "things", "held_out"});
    PunaFact fact;
    for (const char* key : {"id", "answer"}) {
      if (!json.contains(key)) fail(where, "'{}' is missing", key);
    }
    fact.id = text_of(json.at("id"), where, "id");
    fact.answer = text_of(json.at("answer"), where, "answer");
    fact.facts = list_of(json, where, "facts", true);
    fact.questions = list_of(json, where, "questions", true);
    fact.tasks = list_of(json, where, "tasks", false);
    fact.things = list_of(json, where, "things", false);
    fact.held_out = list_of(json, where, "held_out", true);
    if (!ids.insert(fact.id).second) fail(where, "there are two facts with the id '{}'", fact.id);
    facts.push_back(std::move(fact));
  });
  if (facts.empty()) fail(file.string(), "there are no facts");
  return facts;
}

UnknownQuestions read_unknown(const std::filesystem::path& file) {
  UnknownQuestions all;
  const std::map<std::string, std::vector<std::string>*> lists = {{"answer", &all.answers},
                                                                  {"question", &all.questions},
                                                                  {"task", &all.tasks},
                                                                  {"thing", &all.things},
                                                                  {"held_out", &all.held_out}};
  for_each_line(file, [&](const Json& json, const std::string& where) {
    check_keys(json, where, {"answer", "slot", "values", "question", "task", "thing", "held_out"});
    if (json.contains("slot")) {
      all.slots[text_of(json.at("slot"), where, "slot")] = list_of(json, where, "values", true);
      return;
    }
    if (json.size() != 1 || !lists.contains(json.begin().key())) fail(where, "wants one key, or 'slot' with 'values'");
    const std::string text = text_of(json.begin().value(), where, json.begin().key());
    check_slots(text, all, where);
    lists.at(json.begin().key())->push_back(text);
  });
  for (const auto& [name, list] : lists) {
    if (list->empty()) fail(file.string(), "there is no line with '{}'", name);
  }
  return all;
}

}  // namespace puna::synth
