// One connection: its requests, one after the other, each with its answer. Everything runs on the server's thread.
#pragma once

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "http/exchange.h"
#include "http/request_parser.h"
#include "http/server.h"
#include "http/transport.h"

namespace puna::http {

/// What the connections of a server share.
struct ServerState {
  Limits limits;
  Handler handler;
  std::function<bool(const Request&)> takes_body;
  bool draining = false;
  /// Of all requests, by whoever still holds one.
  std::shared_ptr<std::atomic<int64_t>> body_bytes = std::make_shared<std::atomic<int64_t>>(0);
  int64_t buffered_bytes = 0;  // in all in_ and out_
  std::vector<char> received;  // for one read
  std::atomic<int64_t> open_connections = 0, open_requests = 0, accepted = 0, refused = 0;
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  using Clock = std::chrono::steady_clock;

  /// `server` outlives it. `transport` is over `socket`.
  Connection(ServerState& server, boost::asio::ip::tcp::socket socket, std::unique_ptr<Transport> transport);

  /// Until the connection is closed. Owned by a shared_ptr for as long.
  boost::asio::awaitable<void> run();
  /// Looks again at what is to be done.
  void wake();
  /// Gives up what runs; run() returns soon.
  void cut();
  void close();

 private:
  struct Answer;
  struct Watch;

  boost::asio::awaitable<bool> shake_hands();
  boost::asio::awaitable<bool> read_request(RequestParser& parser);
  boost::asio::awaitable<bool> answer(RequestParser& parser);
  boost::asio::awaitable<void> refuse(Refusal refusal, bool is_head);
  boost::asio::awaitable<void> part();
  boost::asio::awaitable<void> wait(Clock::time_point until);

  std::optional<Refusal> parse(RequestParser& parser);
  void begin_body(RequestParser& parser);
  void hold_body(int64_t bytes);
  std::shared_ptr<void> pass_on_body();
  std::optional<Refusal> out_of_time() const;

  void call_handler(Answer& answer, Request request);
  bool advance(Answer& answer);
  bool collect(Answer& answer);
  void begin(Answer& answer, const Reply& reply, bool whole);
  void add_piece(Answer& answer, std::string_view piece);
  Clock::time_point next_deadline(const Answer& answer) const;

  bool push();
  void count_buffers();
  bool has_no_room(size_t bytes) const;
  IoState fill();
  bool read_ahead();
  void want(IoState state);

  ServerState& server_;
  boost::asio::ip::tcp::socket socket_;
  std::unique_ptr<Transport> transport_;
  boost::asio::steady_timer timer_;
  std::string peer_;
  std::string in_, out_;  // received and not parsed; to be sent
  size_t sent_ = 0;       // of out_
  enum class Phase { kIdle, kHeader, kBody } phase_ = Phase::kIdle;
  Clock::time_point deadline_, last_sent_;  // last_sent_: or queued, when nothing was to be sent before
  size_t progress_ = 0;                     // bytes sent since last_sent_
  size_t buffered_bytes_ = 0;               // of ServerState::buffered_bytes
  int64_t held_bytes_ = 0;                  // of ServerState::body_bytes
  bool woken_ = false, cut_ = false, read_armed_ = false, write_armed_ = false;
};

}  // namespace puna::http
