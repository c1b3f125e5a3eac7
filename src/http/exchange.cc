#include "http/exchange.h"

namespace puna::http {

std::string_view Request::header(const std::string& name) const {
  const auto at = headers.find(name);
  return at == headers.end() ? std::string_view() : std::string_view(at->second);
}

}  // namespace puna::http
