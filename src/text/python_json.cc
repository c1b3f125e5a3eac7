#include "text/python_json.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "base/error.h"
#include "text/utf8.h"

namespace puna::text {
namespace {

/// repr(float): the shortest digits, with an exponent below 1e-4 and from 1e16 on.
std::string python_float(double value, const char* infinity, const char* nan) {
  if (std::isnan(value)) return nan;
  if (std::isinf(value)) return fmt::format("{}{}", value < 0 ? "-" : "", infinity);
  char buffer[64];
  const double size = std::abs(value);
  const bool fixed = size == 0 || (size >= 1e-4 && size < 1e16);
  const auto format = fixed ? std::chars_format::fixed : std::chars_format::scientific;
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, format).ptr;
  std::string text(buffer, end);
  if (fixed && text.find('.') == std::string::npos) text += ".0";
  return text;
}

class Writer {
 public:
  explicit Writer(const PythonJsonOptions& options) : options_(options) {}

  void write(const OrderedJson& value, int depth) {
    if (value.is_object()) {
      write_items(value, "{}", depth, [&](const auto& item) {
        write_string(item.key());
        out_ += ": ";
        write(item.value(), depth + 1);
      });
    } else if (value.is_array()) {
      write_items(value, "[]", depth, [&](const auto& item) { write(item.value(), depth + 1); });
    } else if (value.is_string()) {
      write_string(value.get_ref<const std::string&>());
    } else if (value.is_number_float()) {
      out_ += python_float(value.get<double>(), "Infinity", "NaN");
    } else {
      out_ += value.dump();
    }
  }

  std::string take() { return std::move(out_); }

 private:
  template <typename WriteItem>
  void write_items(const OrderedJson& value, const char* brackets, int depth, const WriteItem& write_item) {
    out_ += brackets[0];
    bool first = true;
    for (const auto& item : value.items()) {
      if (!first) out_ += options_.indent ? "," : ", ";
      first = false;
      new_line(depth + 1);
      write_item(item);
    }
    if (!first) new_line(depth);
    out_ += brackets[1];
  }

  void new_line(int depth) {
    if (!options_.indent) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(depth * options_.indent), ' ');
  }

  void write_string(std::string_view text) {
    out_ += '"';
    while (!text.empty()) {
      const Utf8Char c = read_utf8(text);
      if (!c.valid) fail("chat", "a tool definition or call is not valid UTF-8");
      write_char(c, text);
      text.remove_prefix(static_cast<size_t>(c.length));
    }
    out_ += '"';
  }

  void write_char(const Utf8Char& c, std::string_view text) {
    constexpr std::string_view kEscaped = "\"\\\n\r\t\f\b", kLetters = "\"\\nrtfb";
    const uint32_t code = c.code_point;
    if (const size_t i = code < 0x80 ? kEscaped.find(static_cast<char>(code)) : std::string_view::npos;
        i != std::string_view::npos) {
      out_ += '\\';
      out_ += kLetters[i];
    } else if (code < 0x20 || (options_.ensure_ascii && code >= 0x7F && code < 0x10000)) {
      out_ += fmt::format("\\u{:04x}", code);
    } else if (options_.ensure_ascii && code >= 0x10000) {
      out_ += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((code - 0x10000) >> 10), 0xDC00 + ((code - 0x10000) & 0x3FF));
    } else {
      out_ += text.substr(0, static_cast<size_t>(c.length));
    }
  }

  PythonJsonOptions options_;
  std::string out_;
};

}  // namespace

std::string python_json(const OrderedJson& value, const PythonJsonOptions& options) {
  Writer writer(options);
  writer.write(value, 0);
  return writer.take();
}

std::string python_str(const OrderedJson& value) {
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_number_float()) return python_float(value.get<double>(), "inf", "nan");
  return value.dump();
}

}  // namespace puna::text
