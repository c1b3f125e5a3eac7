#include "grammar/integer_range.h"

#include <algorithm>
#include <string>

namespace puna::grammar {
namespace {

ExprId digit(Source& source, char first, char last) {
  return source.chars({{static_cast<uint8_t>(first), static_cast<uint8_t>(last)}});
}

ExprId any_digits(Source& source, size_t count) {
  return source.repeat(digit(source, '0', '9'), static_cast<uint32_t>(count), static_cast<uint32_t>(count));
}

// Numbers of equally many digits from `least` to `most`.
ExprId same_length(Source& source, std::string_view least, std::string_view most) {
  if (least.find_first_not_of('0') == least.npos && most.find_first_not_of('9') == most.npos)
    return any_digits(source, least.size());
  const size_t rest = least.size() - 1;
  if (least[0] == most[0])
    return source.sequence({digit(source, least[0], least[0]), same_length(source, least.substr(1), most.substr(1))});
  const std::string nines(rest, '9'), zeros(rest, '0');
  std::vector<ExprId> choices = {
      source.sequence({digit(source, least[0], least[0]), same_length(source, least.substr(1), nines)}),
      source.sequence({digit(source, most[0], most[0]), same_length(source, zeros, most.substr(1))})};
  if (most[0] - least[0] > 1)
    choices.push_back(source.sequence(
        {digit(source, static_cast<char>(least[0] + 1), static_cast<char>(most[0] - 1)), any_digits(source, rest)}));
  return source.choice(std::move(choices));
}

ExprId not_negative_range(Source& source, uint64_t least, uint64_t most) {
  std::vector<ExprId> choices;
  std::string low = std::to_string(least);
  const std::string high = std::to_string(most);
  while (low.size() < high.size()) {
    choices.push_back(same_length(source, low, std::string(low.size(), '9')));
    low.assign(low.size() + 1, '0');
    low[0] = '1';
  }
  choices.push_back(same_length(source, low, high));
  return source.choice(std::move(choices));
}

uint64_t magnitude(int64_t value) {
  return value < 0 ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
}

}  // namespace

ExprId integer_range(Source& source, std::optional<int64_t> least, std::optional<int64_t> most, uint32_t max_digits) {
  const auto end = static_cast<int64_t>(std::stoll(std::string(max_digits, '9')));
  const int64_t low = least.value_or(std::min(-end, most.value_or(end)));
  const int64_t high = most.value_or(std::max(end, low));
  std::vector<ExprId> choices;
  if (low <= high && low < 0)
    choices.push_back(source.sequence(
        {source.bytes("-"), not_negative_range(source, high < 0 ? magnitude(high) : 1, magnitude(low))}));
  if (low <= high && high >= 0)
    choices.push_back(
        not_negative_range(source, static_cast<uint64_t>(std::max<int64_t>(low, 0)), static_cast<uint64_t>(high)));
  return source.choice(std::move(choices));
}

}  // namespace puna::grammar
