// The hand-written questions: what can be asked of Puna with its answers, and what it does not know.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace puna::synth {

/// A line of facts.jsonl: {"id", "answer", "facts": [...], "questions": [...], "tasks": [...], "things": [...],
/// "held_out": [...]}. A right answer to a held-out question contains all strings of "facts". "tasks" ("train a model")
/// and "things" ("the router") are asked for in many frames; both may be left out.
struct PunaFact {
  std::string id, answer;
  std::vector<std::string> facts, questions, tasks, things, held_out;
};

/// unknown.jsonl, a line each of: {"answer": ...}, {"slot": NAME, "values": [...]}, {"question": "... {NAME} ..."},
/// {"task": ...}, {"thing": ...}, {"held_out": ...}. All questions have any of the answers.
struct UnknownQuestions {
  std::vector<std::string> answers, questions, tasks, things, held_out;
  std::map<std::string, std::vector<std::string>> slots;
};

/// Both throw Error, naming file and line, for a malformed line, a missing part or an unknown key.
std::vector<PunaFact> read_facts(const std::filesystem::path& file);
UnknownQuestions read_unknown(const std::filesystem::path& file);

}  // namespace puna::synth
