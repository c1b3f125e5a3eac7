// Any bytes as a connection's requests: refused or read, and the same whichever way the bytes are split.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include "http/request_parser.h"

namespace puna::http {
namespace {

constexpr int64_t kHeaderBytes = 2000, kBodyBytes = 5000;

struct Outcome {
  std::vector<std::tuple<std::string, std::string, std::map<std::string, std::string>, std::string, bool>> requests;
  int refused = 0;  // the status

  bool operator==(const Outcome&) const = default;
};

// As Connection does, with `step` bytes at a time.
Outcome read_all(std::string_view bytes, size_t step) {
  Outcome outcome;
  std::string in;
  auto parser = std::make_unique<RequestParser>(kHeaderBytes, kBodyBytes);
  try {
    while (!bytes.empty()) {
      in += bytes.substr(0, step);
      bytes.remove_prefix(std::min(step, bytes.size()));
      size_t taken = 1;
      while (!in.empty() && taken > 0) {
        taken = parser->put(in);
        if (taken > in.size() || parser->body_bytes() > kBodyBytes) std::abort();
        in.erase(0, taken);
        if (!parser->done()) continue;
        const bool keep_alive = parser->keep_alive();
        Request request = parser->take();
        outcome.requests.emplace_back(request.method, request.path, request.headers, request.body, keep_alive);
        parser = std::make_unique<RequestParser>(kHeaderBytes, kBodyBytes);
      }
    }
  } catch (const Refusal& refusal) {
    outcome.refused = refusal.status();
  }
  return outcome;
}

}  // namespace
}  // namespace puna::http

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto whole = puna::http::read_all(bytes, std::max<size_t>(size, 1));
  for (const size_t step : {1, 3, 1000}) {
    const auto split = puna::http::read_all(bytes, step);
    // Which limit or error is met first may depend on the split; what was read before may not.
    if (split.requests != whole.requests || (split.refused == 0) != (whole.refused == 0)) std::abort();
  }
  return 0;
}
