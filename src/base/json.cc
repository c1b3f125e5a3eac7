#include "base/json.h"

#include <fstream>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"

namespace puna {
namespace {

constexpr int kMaxDepth = 128;

}  // namespace

Json parse_json(std::string_view text, std::string_view where) {
  std::vector<std::set<std::string, std::less<>>> keys;  // of each open object
  const auto callback = [&](int depth, Json::parse_event_t event, Json& value) {
    if (depth > kMaxDepth) fail(where, "the JSON is nested deeper than {} levels", kMaxDepth);
    if (event == Json::parse_event_t::object_start) {
      keys.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      keys.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) fail(where, "the key '{}' appears twice in one object", key.substr(0, 200));
    }
    return true;
  };
  try {
    return Json::parse(text, callback);
  } catch (const Json::exception& e) {
    std::string_view reason = e.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    if (const auto end = reason.find("] "); end != std::string_view::npos) reason.remove_prefix(end + 2);
    fail(where, "not valid JSON: {}", reason.substr(0, 300));
  }
}

Json read_json_file(const std::filesystem::path& path, int64_t max_bytes) {
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) fail(path.string(), "is a directory, expected a JSON file");
  const auto size = std::filesystem::file_size(path, ec);
  if (ec) fail(path.string(), "cannot be read: {}", ec.message());
  if (size > static_cast<uintmax_t>(max_bytes))
    fail(path.string(), "has {} bytes, more than the limit of {}", size, max_bytes);
  std::ifstream in(path, std::ios::binary);
  std::string text(size, '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(size))) fail(path.string(), "cannot be read to its end");
  return parse_json(text, path.string());
}

}  // namespace puna
