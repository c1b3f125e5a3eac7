#include "server/multipart.h"

#include <fmt/format.h>

#include "server/api_error.h"

namespace puna::server {
namespace {

constexpr size_t kMostParts = 64, kMostHeaderBytes = 4096, kMostBoundaryBytes = 70;

[[noreturn]] void wrong(const std::string& what) { throw ApiError(400, "The multipart body " + what, "body"); }

/// The value of a parameter such as boundary=... or name="...", without its quotes; "": absent.
std::string parameter(std::string_view header, std::string_view name) {
  for (size_t at = header.find(';'); at != std::string_view::npos;) {
    header.remove_prefix(at + 1);
    while (header.starts_with(' ') || header.starts_with('\t')) header.remove_prefix(1);
    if (header.starts_with(name) && header.substr(name.size()).starts_with('=')) {
      header.remove_prefix(name.size() + 1);
      if (header.starts_with('"')) return std::string(header.substr(1, header.substr(1).find('"')));
      return std::string(header.substr(0, header.find_first_of("; \t\r\n")));
    }
    at = header.find(';');
  }
  return {};
}

/// The name in a part's header lines.
std::string part_name(std::string_view lines) {
  while (!lines.empty()) {
    const size_t end = lines.find("\r\n");
    std::string line(lines.substr(0, end));
    lines.remove_prefix(end == std::string_view::npos ? lines.size() : end + 2);
    std::string lower = line.substr(0, 20);
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if (lower == "content-disposition:") return parameter(line, "name");
  }
  return {};
}

}  // namespace

std::map<std::string, std::string> read_multipart(std::string_view content_type, std::string_view body) {
  const std::string boundary = parameter(content_type, "boundary");
  if (boundary.empty() || boundary.size() > kMostBoundaryBytes) wrong("has no boundary in its Content-Type");
  const std::string mark = "\r\n--" + boundary;
  std::map<std::string, std::string> parts;
  if (!body.starts_with(std::string_view(mark).substr(2))) wrong("does not begin with its boundary");
  body.remove_prefix(mark.size() - 2);
  while (!body.starts_with("--")) {
    if (!body.starts_with("\r\n")) wrong("has text behind a boundary");
    const size_t header_end = body.substr(0, kMostHeaderBytes).find("\r\n\r\n");
    if (header_end == std::string_view::npos) wrong("has a part whose header does not end");
    const std::string name = part_name(body.substr(2, header_end - 2));
    body.remove_prefix(header_end + 4);
    const size_t end = body.find(mark);
    if (end == std::string_view::npos) wrong("ends before its last boundary");
    if (name.empty() || name.size() > 200) wrong("has a part without a name");
    if (parts.size() >= kMostParts) wrong(fmt::format("has more than {} parts", kMostParts));
    if (!parts.emplace(name, body.substr(0, end)).second) wrong(fmt::format("has two parts of the name '{}'", name));
    body.remove_prefix(end + mark.size());
  }
  return parts;
}

}  // namespace puna::server
