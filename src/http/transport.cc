#include "http/transport.h"

#include <sys/socket.h>

#include <cerrno>

namespace puna::http {
namespace {

class Plain final : public Transport {
 public:
  explicit Plain(int fd) : fd_(fd) {}

  IoResult handshake() override { return {}; }

  IoResult read(std::span<char> into) override {
    while (true) {
      const ssize_t size = recv(fd_, into.data(), into.size(), 0);
      if (size > 0) return {IoState::kDone, static_cast<size_t>(size)};
      if (size == 0) return {IoState::kEnd};
      if (errno == EAGAIN) return {IoState::kWantsRead};
      if (errno != EINTR) return {IoState::kFailed};
    }
  }

  IoResult write(std::string_view bytes) override {
    while (true) {
      const ssize_t size = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (size >= 0) return {IoState::kDone, static_cast<size_t>(size)};
      if (errno == EAGAIN) return {IoState::kWantsWrite};
      if (errno != EINTR) return {IoState::kFailed};
    }
  }

  void end_writing() override { shutdown(fd_, SHUT_WR); }

 private:
  int fd_;
};

}  // namespace

std::unique_ptr<Transport> plain_transport(int fd) { return std::make_unique<Plain>(fd); }

}  // namespace puna::http
