// A server on a thread of its own, and a client that is a bare socket.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>

#include "http/server.h"

namespace puna::http::test {

/// For what comes at once on an idle machine.
inline constexpr std::chrono::seconds kPatience{60};

class RunningServer {
 public:
  explicit RunningServer(Handler handler, ServerOptions options = any_port());
  /// Stops it; nothing in it may hang.
  ~RunningServer();

  static ServerOptions any_port();
  Server& server() { return *server_; }
  uint16_t port() const { return server_->port(); }
  /// For run() to return.
  void join();

 private:
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

/// Everything it awaits has kPatience.
class Client {
 public:
  explicit Client(uint16_t port, const char* address = "127.0.0.1", int receive_buffer = 0);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void send(std::string_view bytes);
  /// As much as the server takes within a moment; returns how much.
  size_t send_some(std::string_view bytes);
  /// What was received from the start on, once it holds `text`, or all there was until the end.
  const std::string& receive_until(std::string_view text);
  /// The next whole answer (by Content-Length or chunks), taken off what was received.
  std::string receive_answer(bool is_head = false);
  /// Everything until the server ends the connection.
  std::string receive_all();
  /// True when the server ends the connection, whatever comes before.
  bool ends();
  void end_writing();
  /// Leaves with a reset.
  void reset();
  void close();
  int fd() const { return fd_; }

 private:
  bool receive_some();

  int fd_ = -1;
  std::string received_;
};

/// "GET /path HTTP/1.1" with a Host and these lines ("A: b\r\n").
std::string get(std::string_view path, std::string_view fields = "");
std::string post(std::string_view path, std::string_view body, std::string_view fields = "");

/// Waits until it holds; false after kPatience.
bool eventually(const std::function<bool()>& holds);

/// The body of an answer with its chunks put together.
std::string body_of(std::string_view answer);
int status_of(std::string_view answer);

}  // namespace puna::http::test
