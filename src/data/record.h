// src/data: training text and images: records, token shards on disk, mixtures of them by token weight.
// What a step does with the samples is src/train; where generated records come from is src/synth.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "text/chat.h"

namespace puna::data {

/// One document before tokenisation.
struct Record {
  enum class Kind {
    kDocument,  // messages[0].parts laid end to end between <|begin_of_text|> and <|end_of_text|>; loss on all text
    kChat       // encoded by text::encode_chat; loss on what the assistant says and the token that ends its turn
  };
  Kind kind = Kind::kDocument;
  std::vector<text::Message> messages;
  std::vector<std::string> images;  // encoded files (PNG, JPEG, WebP), in the order of the ImageParts
  std::string id;                   // for people: file and line, or the generator's number
};

/// Where records come from. Reading starts at record 0 and is deterministic.
class RecordSource {
 public:
  virtual ~RecordSource() = default;
  /// The next record; nullopt at the end. Throws Error, naming file and line, for a malformed one.
  virtual std::optional<Record> next() = 0;
  /// What all the records depend on (paths, sizes and times of files; a generator's name, count and seed): a dataset
  /// built from an equal fingerprint need not be built again.
  virtual std::string fingerprint() const = 0;
  /// How far reading has come, in [0, 1]; for the progress bar.
  virtual double progress() const = 0;
};

}  // namespace puna::data
