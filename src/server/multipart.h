// Bodies of forms with files (multipart/form-data, RFC 7578).
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace puna::server {

/// The parts by name. Throws ApiError for a Content-Type without a boundary, a body that does not end as it says, parts
/// without a name, names twice, and more than 64 parts.
std::map<std::string, std::string> read_multipart(std::string_view content_type, std::string_view body);

}  // namespace puna::server
