#include "io/directory.h"

#include "base/error.h"

namespace puna::io {

void make_directories(const std::filesystem::path& dir) {
  std::error_code error;
  std::filesystem::create_directories(dir, error);
  if (error) fail(dir.string(), "this directory cannot be made: {}; name another place", error.message());
}

}  // namespace puna::io
