#include "tests/http/support.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace puna::http::test {
namespace {

constexpr int kPatienceMs = static_cast<int>(std::chrono::milliseconds(kPatience).count());

sockaddr_storage endpoint(const char* address, uint16_t port, socklen_t& size) {
  sockaddr_storage storage{};
  auto* v4 = reinterpret_cast<sockaddr_in*>(&storage);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&storage);
  if (inet_pton(AF_INET, address, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    size = sizeof *v4;
  } else {
    EXPECT_EQ(inet_pton(AF_INET6, address, &v6->sin6_addr), 1);
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    size = sizeof *v6;
  }
  return storage;
}

// Past the chunks from `at` on; npos when they are not whole.
size_t end_of_chunks(std::string_view bytes, size_t at, std::string* body) {
  while (true) {
    const size_t line_end = bytes.find("\r\n", at);
    if (line_end == std::string_view::npos) return line_end;
    const size_t size = std::stoul(std::string(bytes.substr(at, line_end - at)), nullptr, 16);
    at = line_end + 2;
    if (bytes.size() < at + size + 2) return std::string_view::npos;
    if (body != nullptr) body->append(bytes.substr(at, size));
    at += size + 2;
    if (size == 0) return at;
  }
}

}  // namespace

RunningServer::RunningServer(Handler handler, ServerOptions options)
    : server_(std::make_unique<Server>(options, std::move(handler))), thread_([this] { server_->run(); }) {}

RunningServer::~RunningServer() {
  server_->stop();
  join();
}

ServerOptions RunningServer::any_port() {
  ServerOptions options;
  options.port = 0;
  return options;
}

void RunningServer::join() {
  if (thread_.joinable()) thread_.join();
}

Client::Client(uint16_t port, const char* address, int receive_buffer) {
  socklen_t size = 0;
  const sockaddr_storage to = endpoint(address, port, size);
  fd_ = socket(to.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_GE(fd_, 0) << std::strerror(errno);
  if (receive_buffer > 0) setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
  EXPECT_EQ(connect(fd_, reinterpret_cast<const sockaddr*>(&to), size), 0) << std::strerror(errno);
  const int one = 1;
  setsockopt(fd_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

Client::~Client() { close(); }

void Client::send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0) return;  // the server has closed; what it said before is still to be read
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
}

size_t Client::send_some(std::string_view bytes) {
  size_t total = 0;
  while (total < bytes.size()) {
    pollfd entry{fd_, POLLOUT, 0};
    if (poll(&entry, 1, 500) <= 0) break;
    const ssize_t sent = ::send(fd_, bytes.data() + total, bytes.size() - total, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) break;
    total += static_cast<size_t>(sent);
  }
  return total;
}

bool Client::receive_some() {
  pollfd entry{fd_, POLLIN, 0};
  if (poll(&entry, 1, kPatienceMs) <= 0) {
    ADD_FAILURE() << "nothing came; so far: " << received_.substr(0, 2000);
    return false;
  }
  char buffer[65536];
  const ssize_t size = recv(fd_, buffer, sizeof buffer, 0);
  if (size <= 0) return false;
  received_.append(buffer, static_cast<size_t>(size));
  return true;
}

const std::string& Client::receive_until(std::string_view text) {
  while (received_.find(text) == std::string::npos && receive_some()) {
  }
  return received_;
}

std::string Client::receive_answer(bool is_head) {
  receive_until("\r\n\r\n");
  const size_t head_end = received_.find("\r\n\r\n");
  if (head_end == std::string::npos) return std::exchange(received_, {});
  const std::string head = received_.substr(0, head_end + 4);
  size_t end = head.size();
  if (!is_head && head.find("Transfer-Encoding: chunked\r\n") != std::string::npos) {
    while ((end = end_of_chunks(received_, head.size(), nullptr)) == std::string::npos)
      if (!receive_some()) return std::exchange(received_, {});
  } else if (const size_t at = head.find("Content-Length: "); !is_head && at != std::string::npos) {
    end += std::stoul(head.substr(at + 16));
    while (received_.size() < end)
      if (!receive_some()) return std::exchange(received_, {});
  }
  std::string answer = received_.substr(0, end);
  received_.erase(0, end);
  return answer;
}

std::string Client::receive_all() {
  while (receive_some()) {
  }
  return std::exchange(received_, {});
}

bool Client::ends() {
  char buffer[65536];
  while (true) {
    pollfd entry{fd_, POLLIN, 0};
    if (poll(&entry, 1, kPatienceMs) <= 0) return false;
    if (recv(fd_, buffer, sizeof buffer, 0) <= 0) return true;
  }
}

void Client::end_writing() { shutdown(fd_, SHUT_WR); }

void Client::reset() {
  const linger now{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close();
}

void Client::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

std::string get(std::string_view path, std::string_view fields) {
  std::string text = "GET ";
  text.append(path).append(" HTTP/1.1\r\nHost: test\r\n").append(fields).append("\r\n");
  return text;
}

std::string post(std::string_view path, std::string_view body, std::string_view fields) {
  std::string text = "POST ";
  text.append(path).append(" HTTP/1.1\r\nHost: test\r\nContent-Length: ").append(std::to_string(body.size()));
  text.append("\r\n").append(fields).append("\r\n").append(body);
  return text;
}

bool eventually(const std::function<bool()>& holds) {
  const auto until = std::chrono::steady_clock::now() + kPatience;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

std::string body_of(std::string_view answer) {
  const size_t head_end = answer.find("\r\n\r\n");
  if (head_end == std::string_view::npos) return "";
  if (answer.substr(0, head_end).find("Transfer-Encoding: chunked") == std::string_view::npos)
    return std::string(answer.substr(head_end + 4));
  std::string body;
  end_of_chunks(answer, head_end + 4, &body);
  return body;
}

int status_of(std::string_view answer) {
  return answer.starts_with("HTTP/1.1 ") ? std::stoi(std::string(answer.substr(9, 3))) : 0;
}

}  // namespace puna::http::test
