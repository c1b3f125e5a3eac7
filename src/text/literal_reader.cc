#include "text/literal_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

namespace puna::text {
namespace {

constexpr size_t kMaxToken = 400;
constexpr size_t kMaxKeys = 10'000;

bool is_digit(int c) { return c >= '0' && c <= '9'; }
bool is_word(int c) { return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_space(int c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

std::string_view json_constant(std::string_view token) {
  if (token == "None" || token == "null") return "null";
  if (token == "True" || token == "true") return "true";
  if (token == "False" || token == "false") return "false";
  return {};
}

size_t num_digits(std::string_view text) {
  return static_cast<size_t>(std::find_if_not(text.begin(), text.end(), is_digit) - text.begin());
}

/// Digits after 0x, 0o or 0b in decimal.
std::string based_number(std::string_view digits, char base) {
  const int radix = base == 'x' || base == 'X' ? 16 : base == 'o' || base == 'O' ? 8 : 2;
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, radix);
  return error == std::errc() && end == digits.data() + digits.size() ? fmt::format("{}", value) : "";
}

}  // namespace

std::string json_number(std::string_view python) {
  std::string body(python);
  if (body.ends_with('_') || body.starts_with('_')) return {};
  std::erase(body, '_');
  std::string_view rest = body;
  const std::string sign = rest.starts_with('-') ? "-" : "";
  if (rest.starts_with('-') || rest.starts_with('+')) rest.remove_prefix(1);
  if (rest.size() > 2 && rest[0] == '0' && std::string_view("xXoObB").find(rest[1]) != std::string_view::npos) {
    const std::string value = based_number(rest.substr(2), rest[1]);
    return value.empty() ? value : sign + value;
  }
  std::string_view whole = rest.substr(0, num_digits(rest));
  rest.remove_prefix(whole.size());
  const bool is_integer = rest.empty();
  std::string_view fraction;
  const bool has_point = rest.starts_with('.');
  if (has_point) {
    fraction = rest.substr(1, num_digits(rest.substr(1)));
    rest.remove_prefix(1 + fraction.size());
  }
  if (whole.empty() && fraction.empty()) return {};
  std::string exponent;
  if (!rest.empty()) {
    if (rest[0] != 'e' && rest[0] != 'E') return {};
    const size_t digits = rest.size() > 1 && (rest[1] == '+' || rest[1] == '-') ? 2 : 1;
    if (rest.size() == digits || num_digits(rest.substr(digits)) != rest.size() - digits) return {};
    exponent = rest;
  }
  const size_t zeros = std::min(whole.find_first_not_of('0'), whole.size());
  if (is_integer && zeros > 0 && zeros < whole.size()) return {};  // 017: neither language says what it is
  whole.remove_prefix(zeros);
  std::string out = fmt::format("{}{}{}{}{}", sign, whole.empty() ? "0" : whole, has_point ? "." : "",
                                has_point && fraction.empty() ? "0" : fraction, exponent);
  return std::isfinite(std::strtod(out.c_str(), nullptr)) ? out : std::string();
}

void LiteralReader::reset() {
  leaf_ = Leaf::kNone;
  frames_.clear();
  has_begun_ = false;
  held_frame_ = std::string::npos;
}

ReadStep LiteralReader::feed(int byte) {
  if (leaf_ == Leaf::kNone) return structure(byte);
  const ReadStep step = leaf_ == Leaf::kString ? feed_string(byte) : feed_token(byte);
  if (step == ReadStep::kTaken || step == ReadStep::kBad) return step;
  leaf_ = Leaf::kNone;
  if (finish_item() == ReadStep::kBad) return ReadStep::kBad;
  if (frames_.empty()) return step;
  return step == ReadStep::kDone ? ReadStep::kTaken : structure(byte);
}

ReadStep LiteralReader::structure(int byte) {
  if (byte == kEndOfText) return ReadStep::kBad;
  if (is_space(byte)) return ReadStep::kTaken;
  const char c = static_cast<char>(byte);
  if (frames_.empty()) return begin_item(c);
  Frame& frame = frames_.back();
  const char closing = frame.kind == '[' ? ']' : frame.kind == '{' ? '}' : ')';
  switch (frame.expect) {
    case Expect::kFirst:
    case Expect::kItem:
      return c == closing ? close() : begin_item(c);
    case Expect::kColon:
      if (c != ':') return ReadStep::kBad;
      out_ += ':';
      frame.expect = Expect::kValue;
      return ReadStep::kTaken;
    case Expect::kValue:
      return begin_item(c);
    case Expect::kNext:
      return c == closing ? close() : c == ',' ? comma() : ReadStep::kBad;
  }
  return ReadStep::kBad;
}

ReadStep LiteralReader::begin_item(char c) {
  const bool is_bracket = c == '[' || c == '{' || (c == '(' && style_ == LiteralStyle::kPython);
  if (is_bracket && is_key()) return ReadStep::kBad;
  if (is_bracket) {
    separate();
    return open(c);
  }
  if (c == '"' || c == '\'') {
    leaf_ = Leaf::kString;
    string_.open(c);
    if (!is_key()) begin_string();
    return ReadStep::kTaken;
  }
  if (!is_word(c) && c != '-' && c != '+' && c != '.') return ReadStep::kBad;
  leaf_ = Leaf::kToken;
  token_ = c;
  return ReadStep::kTaken;
}

void LiteralReader::separate() {
  if (!frames_.empty() && frames_.back().expect == Expect::kItem) out_ += ',';
}

void LiteralReader::begin_string() {
  separate();
  out_ += '"';
  has_begun_ = true;
}

ReadStep LiteralReader::open(char bracket) {
  if (frames_.size() == max_depth_) return ReadStep::kBad;
  frames_.push_back({.kind = bracket, .start = out_.size()});
  if (bracket != '(') {
    out_ += bracket;
  } else if (held_frame_ == std::string::npos) {
    held_frame_ = frames_.size() - 1;
  }
  return ReadStep::kTaken;
}

ReadStep LiteralReader::close() {
  const Frame& frame = frames_.back();
  if (frame.kind == '(') {
    if (frame.expect == Expect::kFirst) {
      out_ += "[]";
    } else if (frame.is_tuple) {
      out_ += ']';
    }
    if (held_frame_ == frames_.size() - 1) held_frame_ = std::string::npos;
  } else {
    out_ += frame.kind == '[' ? ']' : '}';
  }
  frames_.pop_back();
  finish_item();
  return frames_.empty() ? ReadStep::kDone : ReadStep::kTaken;
}

ReadStep LiteralReader::comma() {
  Frame& frame = frames_.back();
  if (frame.kind == '(' && !frame.is_tuple) {
    frame.is_tuple = true;
    out_.insert(frame.start, 1, '[');
    if (held_frame_ == frames_.size() - 1) held_frame_ = std::string::npos;
  }
  frame.expect = Expect::kItem;
  return ReadStep::kTaken;
}

/// A value or a key is whole.
ReadStep LiteralReader::finish_item() {
  if (!is_key()) {
    has_begun_ = true;
    if (!frames_.empty()) frames_.back().expect = Expect::kNext;
    return ReadStep::kTaken;
  }
  Frame& frame = frames_.back();
  separate();
  out_ += '"';
  append_json_escaped(out_, key_);
  out_ += '"';
  frame.expect = Expect::kColon;
  const bool is_new = frame.keys.insert(std::exchange(key_, {})).second;
  return is_new && frame.keys.size() <= kMaxKeys ? ReadStep::kTaken : ReadStep::kBad;
}

ReadStep LiteralReader::feed_string(int byte) {
  const ReadStep step = string_.feed(byte);
  if (is_key()) {
    key_ += string_.take_text();
    return step;
  }
  append_json_escaped(out_, string_.take_text());
  if (step == ReadStep::kDone || step == ReadStep::kDoneBefore) out_ += '"';
  return step;
}

ReadStep LiteralReader::feed_token(int byte) {
  const bool has_exponent = (token_.back() == 'e' || token_.back() == 'E') && !token_.starts_with("0x");
  if (is_word(byte) || byte == '.' || ((byte == '-' || byte == '+') && has_exponent)) {
    token_ += static_cast<char>(byte);
    return token_.size() <= kMaxToken ? ReadStep::kTaken : ReadStep::kBad;
  }
  if (byte == kEndOfText) return ReadStep::kBad;
  const bool is_raw = token_ == "r" || token_ == "R";
  if ((byte == '"' || byte == '\'') && style_ == LiteralStyle::kPython && (is_raw || token_ == "u")) {
    leaf_ = Leaf::kString;
    string_.open(static_cast<char>(byte), is_raw);
    if (!is_key()) begin_string();
    return ReadStep::kTaken;
  }
  std::string text(json_constant(token_));
  if (text.empty()) text = json_number(token_);
  if (text.empty()) return ReadStep::kBad;
  if (is_key()) {
    key_ = std::move(text);
  } else {
    separate();
    out_ += text;
  }
  return ReadStep::kDoneBefore;
}

}  // namespace puna::text
