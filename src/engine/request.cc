#include "engine/request.h"

namespace puna::engine {

std::string_view stop_reason_name(StopReason reason) {
  switch (reason) {
    case StopReason::kStopToken:
      return "stop_token";
    case StopReason::kStopString:
      return "stop_string";
    case StopReason::kMaxTokens:
      return "length";
    case StopReason::kContextFull:
      return "context";
    case StopReason::kCancelled:
      return "cancelled";
    case StopReason::kDeadline:
      return "deadline";
  }
  return "";
}

double Generation::decode_tokens_per_second() const {
  return tokens.size() > 1 && decode_ms > 0 ? 1000.0 * static_cast<double>(tokens.size() - 1) / decode_ms : 0;
}

void Ticket::finish(Response response) {
  {
    const std::lock_guard lock(mutex_);
    response_ = std::move(response);
    done_ = true;
  }
  changed_.notify_all();
}

const Response& Ticket::wait() const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return done_.load(); });
  return response_;
}

}  // namespace puna::engine
