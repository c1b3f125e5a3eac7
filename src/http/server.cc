#include "http/server.h"

#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <netinet/tcp.h>
#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <limits>
#include <unordered_map>

#include "base/error.h"
#include "http/address.h"
#include "http/connection.h"

namespace puna::http {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr size_t kReadBytes = 64 << 10;
// What the kernel holds unsent for one connection, beyond what is on its way.
constexpr int kUnsentBytes = 128 << 10;
constexpr std::chrono::milliseconds kAcceptPause{100};

void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

asio::ip::address parse_address(std::string text) {
  if (text == "localhost") return asio::ip::address_v4::loopback();
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  error_code error;
  const auto address = asio::ip::make_address(text, error);
  if (error) fail("http", "'{}' is no address; give 127.0.0.1, 0.0.0.0, ::1, :: or another of this machine", text);
  return address;
}

[[noreturn]] void cannot_listen(const tcp::endpoint& endpoint, const error_code& error) {
  const std::string address = endpoint.address().to_string();
  if (error == asio::error::address_in_use)
    fail("http", "port {} of {} is in use; take another port with --port", endpoint.port(), address);
  if (error == asio::error::access_denied)
    fail("http", "port {} needs the rights of root; take one from 1024 on with --port", endpoint.port());
  if (error.value() == EADDRNOTAVAIL || error == asio::error::address_family_not_supported)
    fail("http", "{} is not an address of this machine; 0.0.0.0 is all of them, 127.0.0.1 this machine alone", address);
  fail("http", "cannot listen on port {} of {}: {}", endpoint.port(), address, error.message());
}

tcp::acceptor listen(asio::io_context& io, const tcp::endpoint& endpoint) {
  tcp::acceptor acceptor(io);
  error_code error, ignored;
  acceptor.open(endpoint.protocol(), error);
  if (error) cannot_listen(endpoint, error);
  acceptor.set_option(tcp::acceptor::reuse_address(true), ignored);
  if (endpoint.protocol() == tcp::v6()) acceptor.set_option(asio::ip::v6_only(false), ignored);
  acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) cannot_listen(endpoint, error);
  return acceptor;
}

void set_number(tcp::socket& socket, int name, int value) {
  setsockopt(socket.native_handle(), IPPROTO_TCP, name, &value, sizeof value);
}

void prepare(tcp::socket& socket, const Limits& limits) {
  error_code ignored;
  socket.non_blocking(true, ignored);
  socket.set_option(tcp::no_delay(true), ignored);
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
  set_number(socket, TCP_NOTSENT_LOWAT, kUnsentBytes);
  // A client that vanished without a word takes nothing either.
  set_number(socket, TCP_USER_TIMEOUT,
             static_cast<int>(std::min<int64_t>(limits.write_time.count(), std::numeric_limits<int>::max())));
}

}  // namespace

class Server::Impl {
 public:
  Impl(const ServerOptions& options, Handler handler);
  ~Impl();

  void run();
  void drain(std::chrono::milliseconds limit);
  uint16_t port() const { return port_; }
  std::string url() const;
  const ServerState& state() const { return state_; }

 private:
  asio::awaitable<void> accept();
  asio::awaitable<void> await_drain();
  void admit(tcp::socket socket);
  void begin_drain(std::chrono::milliseconds limit);
  void cut_all();
  void stop_when_empty();

  asio::io_context io_{1};
  ServerState state_;
  const bool is_tls_;
  const asio::ip::address address_;
  std::unique_ptr<TlsContext> tls_;
  tcp::acceptor acceptor_;
  asio::posix::stream_descriptor drain_event_;
  asio::steady_timer accept_pause_, cut_timer_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  std::atomic<int64_t> drain_ms_ = std::numeric_limits<int64_t>::max();
  uint16_t port_ = 0;
};

Server::Impl::Impl(const ServerOptions& options, Handler handler)
    : is_tls_(options.tls.has_value()),
      address_(parse_address(options.address)),
      tls_(is_tls_ ? std::make_unique<TlsContext>(options.tls->certificate, options.tls->key) : nullptr),
      acceptor_(listen(io_, {address_, options.port})),
      drain_event_(io_, eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)),
      accept_pause_(io_),
      cut_timer_(io_) {
  state_.limits = options.limits;
  state_.handler = std::move(handler);
  state_.takes_body = options.takes_body;
  state_.received.resize(kReadBytes);
  port_ = acceptor_.local_endpoint().port();
  raise_descriptor_limit();
}

Server::Impl::~Impl() {
  begin_drain(std::chrono::milliseconds(0));
  cut_all();
  drain_event_.close();
  // Every wait has been cancelled, so that all coroutines end here.
  do {
    io_.restart();
  } while (io_.poll() > 0);
}

std::string Server::Impl::url() const {
  const std::string host = address_.is_v6() ? fmt::format("[{}]", address_.to_string()) : address_.to_string();
  return fmt::format("{}://{}:{}", is_tls_ ? "https" : "http", host, port_);
}

void Server::Impl::run() {
  asio::co_spawn(io_, accept(), [](const std::exception_ptr& error) {
    if (error) std::rethrow_exception(error);
  });
  asio::co_spawn(io_, await_drain(), [](const std::exception_ptr& error) {
    if (error) std::rethrow_exception(error);
  });
  io_.run();
}

// Only what a signal handler may call.
void Server::Impl::drain(std::chrono::milliseconds limit) {
  const int saved_errno = errno;
  int64_t least = drain_ms_.load();
  while (limit.count() < least && !drain_ms_.compare_exchange_weak(least, limit.count())) {
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(drain_event_.native_handle(), &one, sizeof one);
  errno = saved_errno;
}

asio::awaitable<void> Server::Impl::await_drain() {
  while (true) {
    const auto [error] =
        co_await drain_event_.async_wait(asio::posix::descriptor_base::wait_read, asio::as_tuple(asio::use_awaitable));
    if (error) co_return;
    uint64_t count = 0;
    if (read(drain_event_.native_handle(), &count, sizeof count) < 0) continue;
    begin_drain(std::chrono::milliseconds(drain_ms_.load()));
  }
}

void Server::Impl::begin_drain(std::chrono::milliseconds limit) {
  state_.draining = true;
  error_code ignored;
  acceptor_.close(ignored);
  accept_pause_.cancel();
  for (const auto& [connection, owner] : connections_) connection->wake();
  cut_timer_.expires_after(std::min<std::chrono::milliseconds>(limit, std::chrono::hours(24 * 365)));
  cut_timer_.async_wait([this](const error_code& error) {
    if (!error) cut_all();
  });
  stop_when_empty();
}

void Server::Impl::cut_all() {
  for (const auto& [connection, owner] : connections_) connection->cut();
  cut_timer_.cancel();
}

void Server::Impl::stop_when_empty() {
  if (state_.draining && connections_.empty()) io_.stop();
}

asio::awaitable<void> Server::Impl::accept() {
  bool said = false;
  while (!state_.draining) {
    auto [error, socket] = co_await acceptor_.async_accept(asio::as_tuple(asio::use_awaitable));
    if (state_.draining) co_return;
    if (!error) {
      admit(std::move(socket));
      continue;
    }
    if (error == asio::error::connection_aborted) continue;
    if (!std::exchange(said, true)) spdlog::warn("[http] connections wait to be taken: {}", error.message());
    accept_pause_.expires_after(kAcceptPause);
    co_await accept_pause_.async_wait(asio::as_tuple(asio::use_awaitable));
  }
}

void Server::Impl::admit(tcp::socket socket) {
  if (std::cmp_greater_equal(connections_.size(), state_.limits.connections)) {
    ++state_.refused;
    return;
  }
  prepare(socket, state_.limits);
  const int fd = socket.native_handle();
  auto transport = tls_ ? tls_->transport(fd) : plain_transport(fd);
  const auto connection = std::make_shared<Connection>(state_, std::move(socket), std::move(transport));
  connections_.emplace(connection.get(), connection);
  ++state_.accepted;
  ++state_.open_connections;
  asio::co_spawn(io_, connection->run(), [this, connection](const std::exception_ptr& error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const std::exception& failure) {
      spdlog::error("[http] a connection is closed: {}", failure.what());
    }
    connection->close();
    connections_.erase(connection.get());
    --state_.open_connections;
    stop_when_empty();
  });
}

bool is_loopback(const std::string& text) { return unmapped(parse_address(text)).is_loopback(); }

Server::Server(const ServerOptions& options, Handler handler)
    : impl_(std::make_unique<Impl>(options, std::move(handler))) {}
Server::~Server() = default;

uint16_t Server::port() const { return impl_->port(); }
std::string Server::url() const { return impl_->url(); }
void Server::run() { impl_->run(); }
void Server::drain(std::chrono::milliseconds limit) { impl_->drain(limit); }

ServerStats Server::stats() const {
  const ServerState& state = impl_->state();
  return {state.open_connections, state.open_requests, state.accepted, state.refused};
}

}  // namespace puna::http
