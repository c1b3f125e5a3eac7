#include "synth/words.h"

#include <cctype>

#include "synth/maker.h"

namespace puna::synth {
namespace {

constexpr std::array<std::string_view, 48> kSyllables = {
    "ba",  "bel", "bo",  "da",  "den", "dor", "el",  "fa",  "fin", "ga",  "gor", "ha", "hel", "il", "ka", "kel",
    "kor", "la",  "len", "lo",  "ma",  "mel", "mi",  "mor", "na",  "nel", "no",  "pa", "pel", "po", "ra", "ren",
    "ri",  "ro",  "sa",  "sel", "so",  "ta",  "tel", "to",  "tor", "va",  "vel", "vi", "wen", "ya", "za", "zo"};
constexpr std::array<std::string_view, 20> kEndings = {"ny", "ton", "ra",   "lin", "mar", "dal", "wick",
                                                       "vi", "sen", "ko",   "tis", "ham", "ber", "lo",
                                                       "na", "rus", "gard", "mi",  "tan", "do"};

constexpr std::array<std::string_view, 24> kWeather = {
    "The sky was {adjective} that morning.",
    "It rained for most of the {time}.",
    "A {adjective} wind came from the sea.",
    "The {time} was long and {adjective}.",
    "Nobody in the street said a word.",
    "The old road goes past the river and up the hill.",
    "There was snow on the roofs until the {time}.",
    "All the windows were open, and it was {adjective} inside.",
    "Some people were waiting in front of the door.",
    "The train was late again.",
    "They talked about the weather for an hour.",
    "The water in the river was {adjective}.",
    "A few birds were sitting on the wall.",
    "In the {time} the shops are closed.",
    "We walked for a while and then sat down under a tree.",
    "The house at the corner looks {adjective}.",
    "It was a {adjective} day for everybody.",
    "The road was {adjective} and there was much dust.",
    "Most of the guests went home in the {time}.",
    "After the {time} it became quiet.",
    "The news was {adjective}, as it often is.",
    "Children were playing behind the fence.",
    "Nothing else happened on that {time}.",
    "The trees along the way are {adjective}.",
};
constexpr std::array<std::string_view, 12> kAdjectives = {"cold", "warm", "dark", "quiet",  "clear", "strange",
                                                          "soft", "dry",  "wet",  "bright", "slow",  "heavy"};
constexpr std::array<std::string_view, 6> kTimes = {"morning", "evening", "night", "afternoon", "day", "summer"};
constexpr std::array<std::string_view, 40> kWords = {
    "stone", "river", "paper", "window", "green",  "seven", "music", "winter", "bread", "light",
    "house", "cloud", "tiger", "silver", "garden", "three", "ocean", "summer", "chair", "night",
    "apple", "train", "happy", "yellow", "bridge", "water", "table", "little", "north", "glass",
    "horse", "field", "quick", "button", "island", "sugar", "flame", "mirror", "queen", "earth"};

}  // namespace

std::string made_up_name(Random& random) {
  std::string name(random.pick(kSyllables));
  if (random.chance(0.5)) name += random.pick(kSyllables);
  name += random.pick(kEndings);
  name[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(name[0])));
  return name;
}

std::string person(Random& random) {
  return random.chance(0.5) ? std::string(random.pick(kNames)) : made_up_name(random);
}

std::string town(Random& random) {
  return random.chance(0.5) ? std::string(random.pick(kTowns)) : made_up_name(random);
}

std::string code(Random& random) {
  std::string out;
  const int64_t sort = random.below(3);
  if (sort == 0) {
    out += static_cast<char>('A' + random.below(26));
    out += static_cast<char>('A' + random.below(26));
  }
  const int64_t digits = sort == 0 ? 2 : sort == 1 ? 4 : random.between(3, 6);
  for (int64_t i = 0; i < digits; ++i) out += static_cast<char>('0' + random.below(10));
  return out;
}

std::string any_word(Random& random) {
  switch (random.below(5)) {
    case 0:
      return std::string(random.pick(kWords));
    case 1:
      return std::string(random.pick(kThings));
    case 2:
      return std::string(random.pick(kWordColours));
    case 3:
      return std::string(random.pick(kFoods));
    default: {
      std::string name = made_up_name(random);
      name[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(name[0])));
      return name;
    }
  }
}

std::string filler_sentence(Random& random) {
  return fill(random.pick(kWeather),
              {{"adjective", std::string(random.pick(kAdjectives))}, {"time", std::string(random.pick(kTimes))}});
}

int64_t rough_tokens(std::string_view text) {
  int64_t tokens = 0;
  for (size_t i = 0; i < text.size();) {
    const auto letter = [&](size_t at) {
      return at < text.size() && std::isalpha(static_cast<unsigned char>(text[at])) != 0;
    };
    if (!letter(i)) {
      tokens += text[i] == ' ' && letter(i + 1) ? 0 : 1;
      ++i;
      continue;
    }
    const size_t begin = i;
    while (letter(i)) ++i;
    const auto length = static_cast<int64_t>(i - begin);
    const bool capital = std::isupper(static_cast<unsigned char>(text[begin])) != 0 && length > 3;
    tokens += capital ? (length + 2) / 3 : (length + 8) / 9;
  }
  return tokens;
}

}  // namespace puna::synth
