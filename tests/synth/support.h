// What the tests of src/synth share.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "synth/generator.h"

namespace puna::synth {

inline std::string text_of(const text::Message& message) {
  std::string out;
  for (const text::Part& part : message.parts) {
    if (const auto* text = std::get_if<text::TextPart>(&part)) out += text->text;
  }
  return out;
}

inline GeneratorOptions options_of(const std::string& kind, int64_t documents, Split split = Split::kTrain,
                                   int64_t length = 0) {
  GeneratorOptions options;
  options.kind = kind;
  options.documents = documents;
  options.seed = 7;
  options.split = split;
  options.length = length;
  const std::string recipes = std::string(PUNA_SOURCE_DIR) + "/recipes/demo";
  if (kind == "questions") options.file = recipes + "/facts.jsonl";
  if (kind == "unknown") options.file = recipes + "/unknown.jsonl";
  if (kind == "conversations") options.file = recipes;
  if (kind == "packages") options.file = std::string(PUNA_SOURCE_DIR) + "/tests/synth/packages.txt";
  return options;
}

inline std::vector<data::Record> records_of(const GeneratorOptions& options) {
  std::vector<data::Record> records;
  const auto source = open_generator(options);
  while (auto record = source->next()) records.push_back(std::move(*record));
  return records;
}

/// "add" of "arithmetic/add/17".
inline std::string sort_of(const data::Record& record) {
  const size_t begin = record.id.find('/') + 1;
  return record.id.substr(begin, record.id.find('/', begin) - begin);
}

}  // namespace puna::synth
