// What /metrics shows, in Prometheus' text format.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "engine/engine.h"

namespace puna::server {

class Metrics {
 public:
  Metrics();
  ~Metrics();

  /// A request was answered.
  void count_request(const std::string& path, int status);
  /// Seconds from a request's arrival to its first token, and from a token to the next.
  void first_token(double seconds);
  void next_token(double seconds);
  /// Seconds from the engine's token to its bytes being with the connection: the engine waits for that.
  void token_handled(double seconds);

  /// `open_connections` and what the engine counts are read now.
  std::string text(const engine::Engine& engine, int64_t open_connections);

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace puna::server
