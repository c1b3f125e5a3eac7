// Key-value pairs and queries, as plain documents, to measure what a model finds again at which distance.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "synth/maker.h"
#include "synth/words.h"

namespace puna::synth {
namespace {

constexpr std::array<std::string_view, 16> kValues = {"blue",  "red",   "green", "black", "white", "stone",
                                                      "river", "apple", "fire",  "moon",  "gold",  "tree",
                                                      "bird",  "fish",  "rain",  "snow"};
constexpr int64_t kTokensOfLine = 3;  // key, value, line end
constexpr int64_t kMaxPairs = 8, kMaxQueries = 21, kKeys = 100;

class Retrieval : public Maker {
 public:
  explicit Retrieval(int64_t length) : length_(length) {}

  /// Lines "41 blue" of distinct keys, at random places among lines "-- gold"; then the queries, each one of these
  /// pairs once more. There are at most 8 pairs and 21 queries, whatever the length.
  Draft make(Random& random, Split, int64_t) const override {
    const int64_t num_lines = length_ / kTokensOfLine, num_queries = std::min(kMaxQueries, num_lines / 2);
    const int64_t num_told = num_lines - num_queries, num_pairs = std::min(kMaxPairs, num_told);
    std::vector<std::string> pairs, lines;
    std::set<int64_t> keys;
    while (static_cast<int64_t>(pairs.size()) < num_pairs) {
      const int64_t key = random.below(kKeys);
      if (keys.insert(key).second) pairs.push_back(fmt::format("{:02} {}", key, random.pick(kValues)));
    }
    lines = pairs;
    while (static_cast<int64_t>(lines.size()) < num_told) lines.push_back(fmt::format("-- {}", random.pick(kValues)));
    for (int64_t left = num_told; left > 1; --left)
      std::swap(lines[static_cast<size_t>(left - 1)], lines[static_cast<size_t>(random.below(left))]);
    for (int64_t i = 0; i < num_queries; ++i) lines.push_back(random.pick(pairs));
    Draft draft;
    draft.content = fmt::format("{}", fmt::join(lines, "\n"));
    add_turn(draft.record, text::Role::kUser, draft.content);
    draft.what = "pairs";
    return draft;
  }

 private:
  int64_t length_;
};

}  // namespace

std::unique_ptr<Maker> make_retrieval(int64_t length) { return std::make_unique<Retrieval>(length); }

}  // namespace puna::synth
