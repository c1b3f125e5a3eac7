// What /metrics shows, in Prometheus' text format.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "http/server.h"

namespace puna::server {

class Service;

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

  /// With what the service, its engine and the connections count by themselves.
  std::string text(const Service& service, const http::ServerStats& connections);

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace puna::server
