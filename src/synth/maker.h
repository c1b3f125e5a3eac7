// What a kind of generated record provides, and helpers that several kinds share.
#pragma once

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "data/record.h"
#include "synth/generator.h"
#include "synth/random.h"

namespace puna::synth {

struct Draft {
  data::Record record;
  std::string what;     // the sort within the kind: "add"; becomes part of the id
  std::string content;  // decides the split by its hash; empty: the maker has kept to the split itself
};

/// One kind of record. Stateless: everything comes from the arguments.
class Maker {
 public:
  virtual ~Maker() = default;
  /// A candidate for record `number` of the split; drawn again until its content belongs there.
  virtual Draft make(Random& random, Split split, int64_t number) const = 0;
  /// Records that the split can give; -1: any number.
  virtual int64_t available(Split) const { return -1; }
  /// What the records depend on beyond the options: hashes of files.
  virtual std::string fingerprint() const { return {}; }
};

std::unique_ptr<Maker> make_arithmetic();
std::unique_ptr<Maker> make_pictures();
std::unique_ptr<Maker> make_shapes();
std::unique_ptr<Maker> make_lookup(int64_t length);
std::unique_ptr<Maker> make_repeats(int64_t length);
std::unique_ptr<Maker> make_retrieval(int64_t length);
std::unique_ptr<Maker> make_questions(const std::filesystem::path& file);
std::unique_ptr<Maker> make_unknown(const std::filesystem::path& file);
std::unique_ptr<Maker> make_packages(const std::filesystem::path& file);
std::unique_ptr<Maker> make_conversations(int64_t length, const std::filesystem::path& folder);

/// Draws until the content belongs to the split.
Draft draw(const Maker& maker, Random& random, Split split, int64_t number);
/// One in ten contents is held out.
Split split_of(std::string_view content);

/// A chat of alternating turns, the user's first.
data::Record chat(std::initializer_list<std::string> turns);
/// Adds a message; with `image` >= 0, that image stands before the text.
void add_turn(data::Record& record, text::Role role, std::string text, int64_t image = -1);

using Slots = std::vector<std::pair<std::string_view, std::string>>;
/// Replaces each {name} by its value.
std::string fill(std::string_view form, const Slots& slots);

/// What people do to a question: no capital, no end mark, "please", "hi". Names and numbers stay as they are.
std::string casual(Random& random, std::string question);
/// One slip of the finger in a longer word of small letters.
std::string mistyped(Random& random, std::string question);

}  // namespace puna::synth
