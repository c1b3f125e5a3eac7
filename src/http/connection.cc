#include "http/connection.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "http/address.h"
#include "http/reply_head.h"

namespace puna::http {
namespace {

namespace asio = boost::asio;

// An answer that closes the connection is lost if the client still sends: what comes is passed over for a while.
constexpr std::chrono::seconds kPartTime{10}, kPartSilence{2};
// An emptied buffer larger than this is given back.
constexpr size_t kKeptBytes = 4096;
// Of the next requests while one is answered.
constexpr size_t kMostAhead = 512 << 10;
// A client that takes less in Limits::write_time, and not all that there is, counts as gone; so does one that takes
// less than this share.
constexpr size_t kProgressBytes = 64 << 10, kProgressShare = 16;
// No more than this of one connection is refused for what others hold.
constexpr size_t kSmallBuffer = 1 << 20;
// Reads, writes or requests of one connection after which the others have their turn.
constexpr int kTurn = 16;

void clear(std::string& buffer) {
  buffer.clear();
  if (buffer.capacity() > kKeptBytes) buffer.shrink_to_fit();
}

std::string peer_of(const asio::ip::tcp::socket& socket) {
  boost::system::error_code error;
  const auto endpoint = socket.remote_endpoint(error);
  if (error) return "";
  return unmapped(endpoint.address()).to_string();
}

}  // namespace

struct Connection::Answer {
  std::shared_ptr<Exchange> exchange = std::make_shared<Exchange>();
  bool is_http_1_0 = false, is_head = false, keep_alive = false;
  bool begun = false, complete = false, failed = false;
  bool streamed = false, chunked = false, pings = false, has_body = true;
  size_t unsent = 0;  // bytes of pieces in out_
};

// The exchange's ties to its connection, whichever way the answer ends.
struct Connection::Watch {
  Watch(Connection& connection, Exchange& exchange) : connection(connection), exchange(exchange) {
    ++connection.server_.open_requests;
    exchange.watch([weak = connection.weak_from_this(), executor = connection.socket_.get_executor()] {
      asio::post(executor, [weak] {
        if (const auto self = weak.lock()) self->wake();
      });
    });
  }
  ~Watch() {
    --connection.server_.open_requests;
    exchange.watch(nullptr);
    try {
      exchange.leave();
    } catch (const std::exception& error) {
      spdlog::error("[http] what is called when a client leaves failed: {}", error.what());
    }
  }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  Connection& connection;
  Exchange& exchange;
};

Connection::Connection(ServerState& server, asio::ip::tcp::socket socket, std::unique_ptr<Transport> transport)
    : server_(server),
      socket_(std::move(socket)),
      transport_(std::move(transport)),
      timer_(socket_.get_executor()),
      peer_(peer_of(socket_)) {}

void Connection::wake() {
  woken_ = true;
  timer_.cancel();
}

void Connection::cut() {
  cut_ = true;
  wake();
}

void Connection::close() {
  hold_body(0);
  sent_ = 0;
  clear(out_);
  clear(in_);
  count_buffers();
  boost::system::error_code ignored;
  socket_.close(ignored);
}

asio::awaitable<void> Connection::run() {
  if (!co_await shake_hands()) co_return;
  for (int requests = 1; !cut_; ++requests) {
    if (requests % kTurn == 0) {
      wake();
      co_await wait(Clock::now());
    }
    RequestParser parser(server_.limits.header_bytes, server_.limits.body_bytes);
    if (!co_await read_request(parser)) co_return;
    if (!co_await answer(parser)) co_return;
  }
}

/// Until it is woken or the time has come; others have their turn in any case.
asio::awaitable<void> Connection::wait(Clock::time_point until) {
  if (woken_) {
    co_await asio::post(socket_.get_executor(), asio::use_awaitable);
  } else {
    timer_.expires_at(until);
    co_await timer_.async_wait(asio::as_tuple(asio::use_awaitable));
  }
  woken_ = false;
}

asio::awaitable<bool> Connection::shake_hands() {
  const auto until = Clock::now() + server_.limits.header_time;
  while (!cut_) {
    const IoResult result = transport_->handshake();
    if (result.state == IoState::kDone) co_return true;
    if (result.state == IoState::kEnd || result.state == IoState::kFailed) break;
    want(result.state);
    co_await wait(until);
    if (Clock::now() >= until) break;
  }
  co_return false;
}

// ---- Reading a request.

/// False when the connection is to be closed.
asio::awaitable<bool> Connection::read_request(RequestParser& parser) {
  phase_ = Phase::kIdle;
  deadline_ = Clock::now() + server_.limits.idle_time;
  int reads = 0;
  while (!cut_) {
    std::optional<Refusal> refusal = parse(parser);
    if (!refusal && parser.done()) co_return true;
    if (!refusal) {
      const IoState state = fill();
      if (state == IoState::kEnd || state == IoState::kFailed) break;
      const bool late = Clock::now() >= deadline_;
      const bool over = state == IoState::kDone ? late && phase_ != Phase::kIdle : late || server_.draining;
      if (over && phase_ == Phase::kIdle) break;
      if (over) {
        refusal = out_of_time();
      } else {
        if (state == IoState::kDone && ++reads % kTurn == 0) wake();
        if (state != IoState::kDone || woken_) co_await wait(deadline_);
        continue;
      }
    }
    parser.discard_body();
    hold_body(0);
    co_await refuse(*refusal, parser.is_head());
    break;
  }
  co_return false;
}

std::optional<Refusal> Connection::parse(RequestParser& parser) {
  if (in_.empty()) return std::nullopt;
  if (phase_ == Phase::kIdle) {
    phase_ = Phase::kHeader;
    deadline_ = Clock::now() + server_.limits.header_time;
  }
  try {
    while (!in_.empty() && !parser.done()) {
      const size_t taken = parser.put(in_);
      in_.erase(0, taken);
      if (phase_ == Phase::kHeader && parser.header_done()) begin_body(parser);
      hold_body(parser.body_bytes());
      if (taken == 0) break;
    }
  } catch (const Refusal& refusal) {
    return refusal;
  }
  if (in_.empty()) clear(in_);
  count_buffers();
  return std::nullopt;
}

void Connection::begin_body(RequestParser& parser) {
  phase_ = Phase::kBody;
  deadline_ = Clock::now() + server_.limits.body_time;
  if (!parser.done() && server_.takes_body && !server_.takes_body(parser.head())) return parser.drop_body();
  if (*server_.body_bytes + parser.announced_body_bytes() > server_.limits.all_bodies_bytes)
    throw Refusal(503, "the requests under way leave no memory for this one's body; try again");
  if (parser.expects_continue() && in_.empty()) {
    out_ += "HTTP/1.1 100 Continue\r\n\r\n";
    push();
  }
}

/// Of this connection's request, `bytes` are in memory.
void Connection::hold_body(int64_t bytes) {
  *server_.body_bytes += bytes - std::exchange(held_bytes_, bytes);
  if (bytes > 0 && *server_.body_bytes > server_.limits.all_bodies_bytes)
    throw Refusal(503, "the requests under way leave no memory for this one's body; try again");
}

/// From here on they are held as long as the result lives: a handler may need a body longer than its client stays.
std::shared_ptr<void> Connection::pass_on_body() {
  const int64_t bytes = std::exchange(held_bytes_, 0);
  return {nullptr, [bytes, all = server_.body_bytes](void*) { *all -= bytes; }};
}

std::optional<Refusal> Connection::out_of_time() const {
  if (server_.draining) return Refusal(503, "the server is shutting down");
  return Refusal(408, phase_ == Phase::kHeader ? "the request's header took too long" : "the body took too long");
}

asio::awaitable<void> Connection::refuse(Refusal refusal, bool is_head) {
  ++server_.refused;
  const Reply reply = error_reply(refusal.status(), refusal.what());
  Framing framing;
  framing.keep_alive = false;
  framing.length = static_cast<int64_t>(reply.body.size());
  out_ += reply_head(reply, framing);
  if (!is_head) out_ += reply.body;
  last_sent_ = Clock::now();
  while (push() && !out_.empty() && !cut_) {
    const auto until = last_sent_ + server_.limits.write_time;
    co_await wait(until);
    if (Clock::now() >= until) co_return;
  }
  co_await part();
}

/// Ends the connection from our side, and waits for the client's.
asio::awaitable<void> Connection::part() {
  transport_->end_writing();
  const auto until = Clock::now() + kPartTime;
  int reads = 0;
  while (!cut_ && Clock::now() < until) {
    const IoResult result = transport_->read(server_.received);
    if (result.state == IoState::kEnd || result.state == IoState::kFailed) break;
    if (result.state == IoState::kDone && ++reads % kTurn != 0) continue;
    if (result.state == IoState::kDone)
      wake();
    else
      want(result.state);
    const auto silent_until = Clock::now() + kPartSilence;
    co_await wait(silent_until);
    if (Clock::now() >= silent_until) break;
  }
}

// ---- Answering.

/// False when the connection is to be closed.
asio::awaitable<bool> Connection::answer(RequestParser& parser) {
  Answer answer;
  answer.is_http_1_0 = parser.is_http_1_0();
  answer.is_head = parser.is_head();
  answer.keep_alive = parser.keep_alive();
  const Watch watch(*this, *answer.exchange);
  last_sent_ = Clock::now();
  Request request = parser.take();
  request.held = pass_on_body();
  call_handler(answer, std::move(request));
  while (!cut_ && advance(answer)) {
    if (out_.empty() && answer.complete) {
      if (answer.keep_alive && !server_.draining) co_return true;
      co_await part();
      co_return false;
    }
    if (out_.empty() && answer.failed) break;
    // A client may end its side behind its last request; what is ready is still for it.
    if (!answer.complete && !read_ahead()) co_return false;
    const auto until = next_deadline(answer);
    co_await wait(until);
    if (Clock::now() < until) continue;
    if (!out_.empty()) co_return false;
    add_piece(answer, ": ping\n\n");
    last_sent_ = Clock::now();
    answer.unsent = 0;  // it was not written by the handler
  }
  // Without chunks, an orderly end would look like the whole of it.
  boost::system::error_code ignored;
  if (answer.begun && !answer.chunked) socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  co_return false;
}

void Connection::call_handler(Answer& answer, Request request) {
  request.peer = peer_;
  const auto exchange = answer.exchange;
  const std::shared_ptr<Exchange> handle(exchange.get(), [exchange](Exchange*) { exchange->fail(); });
  try {
    server_.handler(request, handle);
    return;
  } catch (const std::exception& error) {
    spdlog::error("[http] {} {}: {}", request.method, request.path, error.what());
  } catch (...) {
    spdlog::error("[http] {} {}: an exception of unknown type", request.method, request.path);
  }
  exchange->fail();
}

/// Sends what can be sent now. False when the client has left.
bool Connection::advance(Answer& answer) {
  for (int turn = 0; turn < kTurn; ++turn) {
    if (out_.empty()) {
      if (!collect(answer)) return true;
      last_sent_ = Clock::now();
    }
    const size_t before = out_.size() - sent_;
    if (!push()) return false;
    count_buffers();
    const size_t after = out_.size() - sent_;
    const size_t of_pieces = std::min(before - after, answer.unsent);
    answer.unsent -= of_pieces;
    answer.exchange->mark_sent(of_pieces);
    if (!out_.empty()) return true;
    if (answer.complete || answer.failed) return true;
  }
  wake();
  return true;
}

/// Takes what the handler has given since the last time. False when nothing is to be sent.
bool Connection::collect(Answer& answer) {
  if (answer.complete || answer.failed) return false;
  Exchange::Progress progress = answer.exchange->take();
  if (progress.failed && !answer.begun && !progress.begun) {
    begin(answer, error_reply(500, "the server failed to answer; its log may say why"), true);
    return true;
  }
  if (progress.begun && progress.whole && has_no_room(progress.head.body.size())) {
    ++server_.refused;
    progress.head = error_reply(503, "the answers that wait for their clients leave no memory for this one; try again");
    spdlog::warn("[http] {}: an answer was refused: clients take too long to read theirs", peer_);
  }
  if (progress.begun) begin(answer, progress.head, progress.whole);
  if (!progress.pieces.empty()) add_piece(answer, progress.pieces);
  if (progress.ended && !answer.complete) {
    if (answer.chunked && answer.has_body) out_ += "0\r\n\r\n";
    answer.complete = true;
  }
  answer.failed = progress.failed;
  return !out_.empty();
}

void Connection::begin(Answer& answer, const Reply& reply, bool whole) {
  answer.begun = true;
  answer.complete = whole;
  answer.streamed = !whole;
  answer.has_body = has_body(reply.status) && !answer.is_head;
  answer.chunked = answer.streamed && !answer.is_http_1_0;
  answer.pings = answer.streamed && answer.has_body && reply.content_type.starts_with("text/event-stream");
  answer.keep_alive = answer.keep_alive && !server_.draining && (whole || answer.chunked);
  Framing framing;
  framing.chunked = answer.chunked;
  framing.keep_alive = answer.keep_alive;
  framing.http_1_0 = answer.is_http_1_0;
  if (whole) framing.length = static_cast<int64_t>(reply.body.size());
  out_ += reply_head(reply, framing);
  if (whole && answer.has_body) out_ += reply.body;
}

void Connection::add_piece(Answer& answer, std::string_view piece) {
  if (!answer.has_body) {
    answer.exchange->mark_sent(piece.size());
    return;
  }
  answer.unsent += piece.size();
  if (answer.chunked) out_ += fmt::format("{:x}\r\n", piece.size());
  out_ += piece;
  if (answer.chunked) out_ += "\r\n";
}

Connection::Clock::time_point Connection::next_deadline(const Answer& answer) const {
  if (!out_.empty()) return last_sent_ + server_.limits.write_time;
  if (answer.pings) return last_sent_ + server_.limits.ping_time;
  return Clock::time_point::max();
}

// ---- Bytes.

/// Sends of out_ what the socket takes. False when the connection is broken.
bool Connection::push() {
  while (!out_.empty()) {
    const IoResult result = transport_->write(std::string_view(out_).substr(sent_));
    if (result.state != IoState::kDone) {
      want(result.state);
      return result.state != IoState::kEnd && result.state != IoState::kFailed;
    }
    sent_ += result.bytes;
    progress_ += result.bytes;
    const bool all = sent_ == out_.size();
    if (all || progress_ >= std::max(kProgressBytes, (out_.size() - sent_) / kProgressShare)) {
      last_sent_ = Clock::now();
      progress_ = 0;
    }
    if (!all) continue;
    sent_ = 0;
    clear(out_);
  }
  return true;
}

void Connection::count_buffers() {
  const size_t bytes = in_.size() + out_.size() - sent_;
  server_.buffered_bytes += static_cast<int64_t>(bytes) - static_cast<int64_t>(std::exchange(buffered_bytes_, bytes));
}

/// Whether so much more would be beyond what all connections may hold.
bool Connection::has_no_room(size_t bytes) const {
  return bytes > kSmallBuffer &&
         server_.buffered_bytes + static_cast<int64_t>(bytes) > server_.limits.all_buffered_bytes;
}

/// Reads once into in_.
IoState Connection::fill() {
  const IoResult result = transport_->read(server_.received);
  if (result.state == IoState::kDone) in_.append(server_.received.data(), result.bytes);
  want(result.state);
  return result.state;
}

/// While an answer is awaited: keeps the next requests' bytes, so that the end behind them is seen. False when the
/// client has left, or sends so much more that its end could not be seen.
bool Connection::read_ahead() {
  while (in_.size() < kMostAhead) {
    const IoState state = fill();
    count_buffers();
    if (state == IoState::kEnd || state == IoState::kFailed) return false;
    if (state != IoState::kDone) return true;
  }
  return false;
}

void Connection::want(IoState state) {
  if (state == IoState::kWantsRead && !read_armed_) {
    read_armed_ = true;
    socket_.async_wait(asio::socket_base::wait_read, [self = shared_from_this()](const boost::system::error_code&) {
      self->read_armed_ = false;
      self->wake();
    });
  }
  if (state == IoState::kWantsWrite && !write_armed_) {
    write_armed_ = true;
    socket_.async_wait(asio::socket_base::wait_write, [self = shared_from_this()](const boost::system::error_code&) {
      self->write_armed_ = false;
      self->wake();
    });
  }
}

}  // namespace puna::http
