#include "grammar/schema_string.h"

#include <cmath>
#include <map>

#include "base/error.h"
#include "base/suggest.h"
#include "grammar/integer_range.h"
#include "grammar/pattern.h"
#include "io/text.h"

namespace puna::grammar {
namespace {

constexpr uint32_t kMaxLength = 10'000;

// RFC 3339, with the days that each month has.
const std::string kDate =
    "([0-9]{4}-(((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01]))|((0[469]|11)-(0[1-9]|[12][0-9]|30))|(02-(0[1-9]|1[0-9]|2[0-"
    "8])))"
    "|([0-9]{2}(0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)-02-29)";
const std::string kTime =
    "([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])";
const std::string kLabel = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?";
const std::string kAtom = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,20}";

const std::map<std::string, std::string, std::less<>>& formats() {
  static const std::map<std::string, std::string, std::less<>> known = {
      {"date", kDate},
      {"time", kTime},
      {"date-time", kDate + "T" + kTime},
      {"uuid", "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"},
      {"email", kAtom + "(\\." + kAtom + "){0,2}@(" + kLabel + "\\.){1,3}[A-Za-z]{2,20}"},
      {"ipv4", "((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"}};
  return known;
}

// http and https alone, as pydantic's HttpUrl: names of up to three labels' points, ports, ASCII behind.
const std::string kUrlName = kLabel + "(\\." + kLabel + "){0,3}(:[1-9][0-9]{0,3})?";
constexpr uint32_t kMostUrlName = 8 + 4 * 63 + 3 + 5;  // with the scheme

std::string url_pattern(const OrderedJson& schema, std::string_view where, const std::string& path) {
  const uint32_t least = schema_count(schema, "minLength", 0, kMaxLength, where, path);
  const uint32_t most = schema_count(schema, "maxLength", kNoLimit, kMaxLength, where, path);
  constexpr uint32_t kLeast = 8;  // http://a
  if (least > kLeast || most <= kMostUrlName)
    fail(where, "{}: 'format': 'uri' takes a minLength up to {} and a maxLength above {}", io::printable(path), kLeast,
         kMostUrlName);
  const std::string rest = most == kNoLimit ? "*" : fmt::format("{{0,{}}}", (most - kMostUrlName - 1) / 3);
  return fmt::format("^https?://{}([/?#]([A-Za-z0-9._~!$&'()*+,;=:@/?#-]|%[0-9A-F]{{2}}){})?$", kUrlName, rest);
}

std::string text_of(const OrderedJson& schema, const char* key, std::string_view where, const std::string& path) {
  if (!schema[key].is_string()) fail(where, "{}: '{}' is not a string", io::printable(path), key);
  return schema[key];
}

std::string pattern_of(const OrderedJson& schema, std::string_view where, const std::string& path) {
  if (schema.contains("pattern")) return text_of(schema, "pattern", where, path);
  const std::string name = text_of(schema, "format", where, path);
  if (name == "uri") return url_pattern(schema, where, path);
  if (const auto known = formats().find(name); known != formats().end()) return "^(" + known->second + ")$";
  std::vector<std::string> names = {"uri"};
  for (const auto& [known, pattern] : formats()) names.push_back(known);
  const std::string nearest = nearest_name(name, names);
  fail(where, "{}: the format '{}' is not supported{}; there are date, time, date-time, uuid, email, ipv4, uri",
       io::printable(path), io::printable(name), nearest.empty() ? "" : fmt::format(" (did you mean '{}'?)", nearest));
}

// A bound rounded to the inside, for integers.
std::optional<int64_t> bound(const OrderedJson& schema, const char* key, bool lower, bool integer,
                             std::string_view where, const std::string& path) {
  if (!schema.contains(key)) return std::nullopt;
  const OrderedJson& value = schema[key];
  if (!value.is_number()) fail(where, "{}: '{}' is not a number", io::printable(path), key);
  constexpr double kMost = 1e18;
  if (std::abs(value.get<double>()) > kMost)
    fail(where, "{}: '{}' is beyond 10^18, the limit of bounds", io::printable(path), key);
  const bool exclusive = std::string_view(key).starts_with("exclusive");
  if (value.is_number_integer() || std::trunc(value.get<double>()) == value.get<double>()) {
    if (exclusive && !integer)
      fail(where, "{}: '{}' is supported for integers alone; use '{}'", io::printable(path), key,
           lower ? "minimum" : "maximum");
    return value.get<int64_t>() + (exclusive ? (lower ? 1 : -1) : 0);
  }
  if (!integer) fail(where, "{}: '{}' of numbers is supported for integers alone", io::printable(path), key);
  return static_cast<int64_t>(lower ? std::ceil(value.get<double>()) : std::floor(value.get<double>()));
}

std::optional<int64_t> tighter(std::optional<int64_t> a, std::optional<int64_t> b, bool lower) {
  if (!a || !b) return a ? a : b;
  return lower ? std::max(*a, *b) : std::min(*a, *b);
}

// Numbers without sign from `least` to `most`, both not negative; the end itself with zeros behind the point alone.
ExprId magnitudes(Source& source, JsonText& json, int64_t least, std::optional<int64_t> most) {
  constexpr uint32_t kDigits = 16;
  const auto with_fraction = [&](ExprId whole, char last) {
    const ExprId digits = source.repeat(source.chars({{'0', static_cast<uint8_t>(last)}}), 1, kDigits);
    return source.sequence({whole, source.optional(source.sequence({json.text("."), digits}))});
  };
  if (!most) return with_fraction(integer_range(source, least, most, kDigits), '9');
  std::vector<ExprId> choices;
  if (least <= *most) choices.push_back(with_fraction(json.text(std::to_string(*most)), '0'));
  if (least < *most) choices.push_back(with_fraction(integer_range(source, least, *most - 1, kDigits), '9'));
  return source.choice(std::move(choices));
}

}  // namespace

uint32_t schema_count(const OrderedJson& schema, const char* key, uint32_t absent, uint32_t limit,
                      std::string_view where, const std::string& path) {
  if (!schema.contains(key)) return absent;
  const OrderedJson& value = schema[key];
  const bool count =
      value.is_number() && value.get<double>() >= 0 && std::trunc(value.get<double>()) == value.get<double>();
  if (!count) fail(where, "{}: '{}' is not a count", io::printable(path), key);
  if (value.get<double>() > limit) fail(where, "{}: '{}' is above {}, the limit here", io::printable(path), key, limit);
  return value.get<uint32_t>();
}

ExprId schema_string(Source& source, JsonText& json, const OrderedJson& schema, std::string_view where,
                     const std::string& path) {
  const uint32_t least = schema_count(schema, "minLength", 0, kMaxLength, where, path);
  const uint32_t most = schema_count(schema, "maxLength", kNoLimit, kMaxLength, where, path);
  if (least > most) fail(where, "{}: 'minLength' {} is above 'maxLength' {}", io::printable(path), least, most);
  if (!schema.contains("pattern") && !schema.contains("format")) return json.string(least, most);
  if (schema.contains("pattern") && schema.contains("format"))
    fail(where, "{}: 'pattern' and 'format' together are not supported; use one", io::printable(path));
  const bool is_url = schema.contains("format") && schema["format"] == "uri";
  if (!is_url && (schema.contains("minLength") || schema.contains("maxLength")))
    fail(where,
         "{}: '{}' with minLength or maxLength is not supported; say the length in a pattern, such as ^[a-z]{{2,8}}$",
         io::printable(path), schema.contains("pattern") ? "pattern" : "format");
  const std::string pattern = pattern_of(schema, where, path);
  const std::string place = fmt::format("{}] [{}", where, io::printable(path));
  return source.sequence({json.text("\""), pattern_expr(source, json, pattern, place), json.text("\"")});
}

ExprId schema_number(Source& source, JsonText& json, const OrderedJson& schema, bool integer, std::string_view where,
                     const std::string& path) {
  const auto get = [&](const char* key, bool lower) { return bound(schema, key, lower, integer, where, path); };
  const auto least = tighter(get("minimum", true), get("exclusiveMinimum", true), true);
  const auto most = tighter(get("maximum", false), get("exclusiveMaximum", false), false);
  if (least && most && *least > *most)
    fail(where, "{}: no number is from {} to {}", io::printable(path), *least, *most);
  if (integer) return json.integer(least, most);
  if (!least && !most) return json.number();
  std::vector<ExprId> choices;
  if (!most || *most >= 0) choices.push_back(magnitudes(source, json, std::max<int64_t>(least.value_or(0), 0), most));
  if (!least || *least < 0) {
    const auto end = least ? std::optional(-*least) : std::nullopt;
    choices.push_back(
        source.sequence({json.text("-"), magnitudes(source, json, std::max<int64_t>(-most.value_or(0), 0), end)}));
  }
  return source.choice(std::move(choices));
}

}  // namespace puna::grammar
