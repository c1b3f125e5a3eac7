#include "text/utf8.h"

#include <algorithm>
#include <cstring>

namespace puna::text {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// Length of the sequence that `lead` opens (0: none can begin with it), and the range of its second byte.
struct Sequence {
  int length;
  uint8_t second_min, second_max;
};

Sequence sequence_of(uint8_t lead) {
  if (lead < 0x80) return {1, 0, 0};
  if (lead < 0xC2) return {0, 0, 0};
  if (lead < 0xE0) return {2, 0x80, 0xBF};
  if (lead < 0xF0) return {3, uint8_t(lead == 0xE0 ? 0xA0 : 0x80), uint8_t(lead == 0xED ? 0x9F : 0xBF)};
  if (lead < 0xF5) return {4, uint8_t(lead == 0xF0 ? 0x90 : 0x80), uint8_t(lead == 0xF4 ? 0x8F : 0xBF)};
  return {0, 0, 0};
}

/// How many bytes from the front form a well-formed part of one sequence, and the length that the sequence wants.
struct Scan {
  int good, wanted;
};

Scan scan_sequence(std::string_view bytes) {
  const auto at = [&](int i) { return static_cast<uint8_t>(bytes[static_cast<size_t>(i)]); };
  const Sequence sequence = sequence_of(at(0));
  if (sequence.length == 0) return {0, 0};
  const int limit = static_cast<int>(std::min<size_t>(bytes.size(), static_cast<size_t>(sequence.length)));
  int good = 1;
  while (good < limit) {
    const uint8_t low = good == 1 ? sequence.second_min : 0x80, high = good == 1 ? sequence.second_max : 0xBF;
    if (at(good) < low || at(good) > high) break;
    ++good;
  }
  return {good, sequence.length};
}

/// Bytes at the front that are ASCII, counted in words of eight.
size_t ascii_prefix(std::string_view bytes) {
  size_t i = 0;
  for (uint64_t word; i + 8 <= bytes.size(); i += 8) {
    std::memcpy(&word, bytes.data() + i, 8);
    if (word & 0x8080808080808080u) break;
  }
  while (i < bytes.size() && static_cast<uint8_t>(bytes[i]) < 0x80) ++i;
  return i;
}

}  // namespace

size_t valid_utf8_prefix(std::string_view bytes) {
  size_t i = 0;
  while (true) {
    i += ascii_prefix(bytes.substr(i));
    if (i == bytes.size()) return i;
    const Scan scan = scan_sequence(bytes.substr(i));
    if (scan.wanted == 0 || scan.good < scan.wanted) return i;
    i += static_cast<size_t>(scan.good);
  }
}

std::string replace_invalid_utf8_prefix(std::string_view bytes, size_t& consumed) {
  std::string out;
  size_t i = 0;
  while (true) {
    const size_t valid = valid_utf8_prefix(bytes.substr(i));
    out.append(bytes, i, valid);
    i += valid;
    if (i == bytes.size()) break;
    const Scan scan = scan_sequence(bytes.substr(i));
    if (scan.good > 0 && i + static_cast<size_t>(scan.good) == bytes.size()) break;  // may yet be completed
    out += kReplacement;
    i += static_cast<size_t>(std::max(scan.good, 1));
  }
  consumed = i;
  return out;
}

std::string replace_invalid_utf8(std::string_view bytes) {
  size_t consumed = 0;
  std::string out = replace_invalid_utf8_prefix(bytes, consumed);
  if (consumed < bytes.size()) out += kReplacement;
  return out;
}

void append_utf8(std::string& out, uint32_t code_point) {
  const auto tail = [&](int shift) { out += static_cast<char>(0x80 | ((code_point >> shift) & 0x3F)); };
  if (code_point < 0x80) {
    out += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    out += static_cast<char>(0xC0 | (code_point >> 6));
    tail(0);
  } else if (code_point < 0x10000) {
    out += static_cast<char>(0xE0 | (code_point >> 12));
    tail(6), tail(0);
  } else {
    out += static_cast<char>(0xF0 | (code_point >> 18));
    tail(12), tail(6), tail(0);
  }
}

Utf8Char read_utf8(std::string_view bytes) {
  const auto lead = static_cast<uint8_t>(bytes[0]);
  if (lead < 0x80) return {lead, 1, true};
  const Scan scan = scan_sequence(bytes);
  if (scan.wanted == 0 || scan.good < scan.wanted) return {lead, 1, false};
  uint32_t code = lead & (0x7Fu >> scan.wanted);
  for (int i = 1; i < scan.wanted; ++i) code = code << 6 | (static_cast<uint8_t>(bytes[static_cast<size_t>(i)]) & 0x3F);
  return {code, scan.wanted, true};
}

}  // namespace puna::text
