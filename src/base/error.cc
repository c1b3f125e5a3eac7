#include "base/error.h"

namespace puna::internal {

void check_failed(const char* file, int line, const char* condition, const std::string& message) {
  throw InternalError(
      fmt::format("internal error at {}:{}: {} is false: {}; please report this", file, line, condition, message));
}

}  // namespace puna::internal
