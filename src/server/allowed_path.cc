#include "server/allowed_path.h"

#include <algorithm>

namespace puna::server {

std::filesystem::path allowed_path(const std::filesystem::path& directory, std::string_view name) {
  if (directory.empty()) return {};
  std::error_code error;
  const auto root = std::filesystem::canonical(directory, error);
  const auto path = error ? root : std::filesystem::canonical(root / name, error);
  if (error || std::mismatch(root.begin(), root.end(), path.begin(), path.end()).first != root.end()) return {};
  return path;
}

}  // namespace puna::server
