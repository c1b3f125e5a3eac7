#include "eval/answer.h"

#include <charconv>
#include <cmath>

namespace puna::eval {
namespace {

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_word(char c) { return is_digit(c) || is_letter(c); }
bool is_end_mark(char c) { return is_space(c) || std::string_view(".,;:!?\"'`*").find(c) != std::string_view::npos; }

template <typename Removed>
std::string_view strip(std::string_view text, Removed removed) {
  while (!text.empty() && removed(text.front())) text.remove_prefix(1);
  while (!text.empty() && removed(text.back())) text.remove_suffix(1);
  return text;
}

size_t digits_end(std::string_view text, size_t at) {
  while (at < text.size() && is_digit(text[at])) ++at;
  return at;
}

// After one to three digits: past groups ",ddd", as long as exactly three digits follow each comma.
size_t groups_end(std::string_view text, size_t at) {
  while (at + 3 < text.size() && text[at] == ',' && digits_end(text, at + 1) == at + 4) at += 4;
  return at;
}

// One past the number that begins at `at` with a digit, or with '.' and a digit.
size_t number_end(std::string_view text, size_t at) {
  size_t end = digits_end(text, at);
  if (end > at && end - at <= 3) end = groups_end(text, end);
  if (end + 1 < text.size() && text[end] == '.' && is_digit(text[end + 1])) end = digits_end(text, end + 1);
  if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
    size_t exponent = end + 1;
    if (exponent < text.size() && (text[exponent] == '+' || text[exponent] == '-')) ++exponent;
    const size_t past = digits_end(text, exponent);
    if (past > exponent && (past == text.size() || !is_letter(text[past]))) end = past;
  }
  return end;
}

bool is_negative(std::string_view text, size_t begin) {
  constexpr std::string_view kMinus = "\xE2\x88\x92";  // U+2212
  const std::string_view before = text.substr(0, begin);
  const size_t length = before.ends_with('-') ? 1 : before.ends_with(kMinus) ? kMinus.size() : 0;
  return length > 0 && (before.size() == length || !is_word(before[before.size() - length - 1]));
}

std::optional<double> parse_number(std::string_view written) {
  std::string digits;
  for (const char c : written)
    if (c != ',') digits += c;
  double value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return error == std::errc() && std::isfinite(value) ? std::optional(value) : std::nullopt;
}

}  // namespace

std::string_view trim(std::string_view text) { return strip(text, is_space); }

std::string normalise(std::string_view text) {
  std::string out;
  for (const char c : strip(text, is_end_mark)) {
    if (is_space(c)) {
      if (!out.ends_with(' ')) out += ' ';
    } else {
      out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
  }
  return out;
}

bool contains_words(std::string_view text, std::string_view fact) {
  if (fact.empty()) return false;
  for (size_t at = text.find(fact); at != std::string_view::npos; at = text.find(fact, at + 1)) {
    const size_t end = at + fact.size();
    const bool goes_on_before = at > 0 && is_word(fact.front()) && is_word(text[at - 1]);
    const bool goes_on_after = end < text.size() && is_word(fact.back()) && is_word(text[end]);
    if (!goes_on_before && !goes_on_after) return true;
  }
  return false;
}

std::optional<double> last_number(std::string_view text) {
  std::optional<double> last;
  for (size_t at = 0; at < text.size();) {
    const bool point = text[at] == '.' && at + 1 < text.size() && is_digit(text[at + 1]);
    if (!is_digit(text[at]) && !point) {
      ++at;
      continue;
    }
    const size_t end = number_end(text, at);
    const bool in_name = at > 0 && (is_letter(text[at - 1]) || text[at - 1] == '_');
    if (const auto value = parse_number(text.substr(at, end - at)); value && !in_name)
      last = is_negative(text, at) ? -*value : *value;
    at = end;
  }
  return last;
}

}  // namespace puna::eval
