// Key-value pairs and a query, as plain documents, to measure what a model finds again at which distance.
#include <fmt/format.h>

#include <array>
#include <set>
#include <string>
#include <vector>

#include "synth/maker.h"
#include "synth/words.h"

namespace puna::synth {
namespace {

constexpr std::array<std::string_view, 16> kValues = {"blue",  "red",   "green", "black", "white", "stone",
                                                      "river", "apple", "fire",  "moon",  "gold",  "tree",
                                                      "bird",  "fish",  "rain",  "snow"};
/// Rough tokens of the query: letter, two to four digits, sign, value, end.
constexpr int64_t kQueryTokens = 8;

class Retrieval : public Maker {
 public:
  explicit Retrieval(int64_t length) : length_(length) {}

  /// "k17: blue; k03: green; ... k17: blue": keys are distinct, and the one asked for lies at a uniform depth.
  Draft make(Random& random, Split, int64_t) const override {
    std::vector<std::string> pairs;
    std::set<std::string> keys;
    const int64_t digits = length_ <= 512 ? 2 : 4;
    const int64_t limit = length_ <= 512 ? 26 * 100 : 26 * 10'000;
    for (int64_t used = kQueryTokens; used < length_ || pairs.empty();) {
      if (static_cast<int64_t>(keys.size()) * 2 > limit) break;
      const std::string key = fmt::format("{}{:0{}}", static_cast<char>('a' + random.below(26)),
                                          random.below(digits == 2 ? 100 : 10'000), digits);
      if (!keys.insert(key).second) continue;
      pairs.push_back(fmt::format("{}: {}", key, random.pick(kValues)));
      used += rough_tokens(pairs.back()) + 1;
    }
    const std::string& asked = random.pick(pairs);
    const std::string text = fmt::format("{}; {}", fmt::join(pairs, "; "), asked);
    Draft draft;
    add_turn(draft.record, text::Role::kUser, text);
    draft.what = "pairs";
    draft.content = fmt::format("{} {}", asked, text.substr(0, 60));
    return draft;
  }

 private:
  int64_t length_;
};

}  // namespace

std::unique_ptr<Maker> make_retrieval(int64_t length) { return std::make_unique<Retrieval>(length); }

}  // namespace puna::synth
