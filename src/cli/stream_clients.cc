#include "cli/stream_clients.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#include "base/error.h"

namespace puna::cli {
namespace {

int connect_to(uint16_t port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket < 0) fail("clients", "cannot open a socket: {}", std::strerror(errno));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const int error = errno;
    ::close(socket);
    fail("clients", "cannot connect to port {}: {}", port, std::strerror(error));
  }
  return socket;
}

/// To the process of idle connections.
struct Order {
  uint16_t port;
  int64_t count;
};

void send_all(int socket, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0) fail("clients", "cannot send: {}", std::strerror(errno));
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

}  // namespace

int64_t raise_open_files(int64_t wanted) {
  rlimit limit{};
  ::getrlimit(RLIMIT_NOFILE, &limit);
  if (static_cast<int64_t>(limit.rlim_cur) < wanted) {
    const rlimit more{static_cast<rlim_t>(wanted), std::max(limit.rlim_max, static_cast<rlim_t>(wanted))};
    const rlimit most{std::min(static_cast<rlim_t>(wanted), limit.rlim_max), limit.rlim_max};
    if (::setrlimit(RLIMIT_NOFILE, &more) != 0) ::setrlimit(RLIMIT_NOFILE, &most);
    ::getrlimit(RLIMIT_NOFILE, &limit);
  }
  return static_cast<int64_t>(limit.rlim_cur);
}

IdleConnections::IdleConnections() {
  int to[2], from[2];
  if (::pipe(to) != 0 || ::pipe(from) != 0) fail("clients", "cannot make a pipe");
  process_ = ::fork();
  if (process_ < 0) fail("clients", "cannot start a process");
  to_ = to[process_ == 0 ? 0 : 1];
  from_ = from[process_ == 0 ? 1 : 0];
  ::close(to[process_ == 0 ? 1 : 0]);
  ::close(from[process_ == 0 ? 0 : 1]);
  if (process_ != 0) return;
  Order order{};
  if (::read(to_, &order, sizeof(order)) == sizeof(order)) {
    char opened = 0;
    try {
      for (int64_t i = 0; i < order.count; ++i) connect_to(order.port);
      opened = 1;
    } catch (const std::exception&) {
      opened = 0;
    }
    if (::write(from_, &opened, 1) == 1 && ::read(to_, &opened, 1) < 0) ::_exit(1);  // until the other end is closed
  }
  ::_exit(0);  // and with it all connections
}

IdleConnections::~IdleConnections() {
  ::close(to_);
  ::close(from_);
  ::waitpid(process_, nullptr, 0);
}

void IdleConnections::open(uint16_t port, int64_t count) {
  const Order order{port, count};
  char opened = 0;
  if (::write(to_, &order, sizeof(order)) != sizeof(order) || ::read(from_, &opened, 1) != 1 || opened == 0)
    fail("clients", "cannot open {} connections to port {}; raise the limit of open files with ulimit -n", count, port);
}

StreamResult run_streams(uint16_t port, const std::string& path, const std::vector<std::string>& bodies) {
  constexpr size_t kKept = 256;  // of each answer's beginning and end
  struct Stream {
    std::string head, tail;
  };
  std::vector<Stream> streams(bodies.size());
  std::vector<pollfd> sockets;
  for (size_t i = 0; i < bodies.size(); ++i) sockets.push_back({connect_to(port), POLLIN, 0});
  const auto start = std::chrono::steady_clock::now();
  for (size_t i = 0; i < bodies.size(); ++i)
    send_all(sockets[i].fd, fmt::format("POST {} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                                        "Connection: close\r\nContent-Length: {}\r\n\r\n{}",
                                        path, bodies[i].size(), bodies[i]));
  size_t open = bodies.size();
  std::vector<char> bytes(size_t{64} << 10);
  while (open > 0) {
    if (::poll(sockets.data(), sockets.size(), -1) < 0) {
      if (errno == EINTR) continue;
      fail("clients", "cannot wait: {}", std::strerror(errno));
    }
    for (size_t i = 0; i < sockets.size(); ++i) {
      if (sockets[i].fd < 0 || sockets[i].revents == 0) continue;
      const ssize_t count = ::recv(sockets[i].fd, bytes.data(), bytes.size(), 0);
      if (count <= 0) {
        ::close(sockets[i].fd);
        sockets[i].fd = -1;
        --open;
        continue;
      }
      const std::string_view piece(bytes.data(), static_cast<size_t>(count));
      Stream& stream = streams[i];
      if (stream.head.size() < kKept) stream.head += piece.substr(0, kKept - stream.head.size());
      stream.tail += piece.size() > kKept ? piece.substr(piece.size() - kKept) : piece;
      if (stream.tail.size() > kKept) stream.tail.erase(0, stream.tail.size() - kKept);
    }
  }
  StreamResult result;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  for (const Stream& stream : streams) {
    if (stream.head.starts_with("HTTP/1.1 200 ") && stream.tail.find("data: [DONE]") != std::string::npos)
      ++result.whole;
    else if (result.first_wrong.empty())
      result.first_wrong = stream.head.empty() ? "nothing came" : stream.head.substr(0, stream.head.find('\r'));
  }
  return result;
}

}  // namespace puna::cli
