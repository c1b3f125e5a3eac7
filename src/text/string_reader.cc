#include "text/string_reader.h"

#include <fmt/format.h>

#include <iterator>

#include "text/utf8.h"

namespace puna::text {
namespace {

constexpr uint32_t kReplacementCharacter = 0xFFFD;

int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 99;
}

}  // namespace

void StringReader::open(char quote, bool raw) {
  *this = StringReader(style_, newlines_);
  quote_ = quote;
  raw_ = raw;
}

ReadStep StringReader::feed(int byte) {
  if (state_ == State::kTwoQuotes) {
    if (byte != quote_) return ReadStep::kDoneBefore;
    triple_ = true;
    state_ = State::kBody;
    return ReadStep::kTaken;
  }
  if (byte == kEndOfText) return ReadStep::kBad;
  const char c = static_cast<char>(byte);
  if (state_ == State::kOpening) {
    state_ = State::kBody;
    if (c == quote_ && style_ == LiteralStyle::kPython) {
      state_ = State::kTwoQuotes;
      return ReadStep::kTaken;
    }
  }
  if (state_ == State::kBody) return body(c);
  return state_ == State::kEscape ? escape(c) : digit(c);
}

ReadStep StringReader::body(char c) {
  if (c == quote_) {
    if (triple_ && ++num_quotes_ < 3) return ReadStep::kTaken;
    finish_character();
    return ReadStep::kDone;
  }
  for (; num_quotes_ > 0; --num_quotes_) this->byte(quote_);
  if (c == '\n' && !newlines_) return ReadStep::kBad;
  if (c == '\\') {
    state_ = State::kEscape;
  } else {
    this->byte(c);
  }
  return ReadStep::kTaken;
}

ReadStep StringReader::escape(char c) {
  state_ = State::kBody;
  if (!raw_) {
    switch (c) {
      case '\n':
        return ReadStep::kTaken;
      case '\\':
      case '\'':
      case '"':
        return code(static_cast<uint32_t>(c));
      case 'a':
        return code(7);
      case 'b':
        return code(8);
      case 't':
        return code(9);
      case 'n':
        return code(10);
      case 'v':
        return code(11);
      case 'f':
        return code(12);
      case 'r':
        return code(13);
      case 'x':
        return expect_digits(2, 4), ReadStep::kTaken;
      case 'u':
        return expect_digits(4, 4), ReadStep::kTaken;
      case 'U':
        return expect_digits(8, 4), ReadStep::kTaken;
      default:
        break;
    }
    if (c == '/' && style_ == LiteralStyle::kJson) return code('/');
    if (digit_value(c) < 8) return expect_digits(3, 3), digit(c);
  }
  this->byte('\\');  // as Python does where there is no such escape
  this->byte(c);
  return ReadStep::kTaken;
}

void StringReader::expect_digits(int count, int bits) {
  state_ = State::kDigits;
  digits_left_ = count;
  bits_ = bits;
  number_ = 0;
}

ReadStep StringReader::digit(char c) {
  const int value = digit_value(c);
  if (value >= 1 << bits_) {
    if (bits_ != 3) return ReadStep::kBad;
    state_ = State::kBody;
    code(number_);
    return body(c);
  }
  number_ = number_ << bits_ | static_cast<uint32_t>(value);
  if (--digits_left_ > 0) return ReadStep::kTaken;
  state_ = State::kBody;
  return code(number_);
}

ReadStep StringReader::code(uint32_t code_point) {
  if (code_point > 0x10FFFF) return ReadStep::kBad;
  const bool is_low = code_point >= 0xDC00 && code_point < 0xE000;
  if (is_low && high_surrogate_ != 0) {
    code_point = 0x10000 + ((high_surrogate_ - 0xD800) << 10) + (code_point - 0xDC00);
    high_surrogate_ = 0;
  } else {
    finish_character();
    if (code_point >= 0xD800 && code_point < 0xDC00) {
      high_surrogate_ = code_point;
      return ReadStep::kTaken;
    }
  }
  append_utf8(text_, is_low && code_point < 0x10000 ? kReplacementCharacter : code_point);
  return ReadStep::kTaken;
}

void StringReader::byte(char c) {
  if (high_surrogate_ != 0) finish_character();
  if (utf8_.empty() && static_cast<uint8_t>(c) < 0x80) {
    text_ += c;
    return;
  }
  utf8_ += c;
  size_t consumed = 0;
  text_ += replace_invalid_utf8_prefix(utf8_, consumed);
  utf8_.erase(0, consumed);
}

void StringReader::finish_character() {
  if (high_surrogate_ != 0) append_utf8(text_, kReplacementCharacter);
  high_surrogate_ = 0;
  text_ += replace_invalid_utf8(std::exchange(utf8_, {}));
}

void append_json_escaped(std::string& out, const std::string& text) {
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<uint8_t>(c) < 0x20) {
          fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<int>(c));
        } else {
          out += c;
        }
    }
  }
}

}  // namespace puna::text
