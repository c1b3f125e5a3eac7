// Words for writes that failed.
#pragma once

#include <string>

namespace puna::io {

/// Why a write failed, of its errno, and what helps: a full disk, a limit on the size of files.
std::string write_failure(int error);

}  // namespace puna::io
