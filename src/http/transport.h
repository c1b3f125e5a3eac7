// The bytes of one connection, plain or through TLS: calls that never wait, over a socket that somebody else owns.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string_view>

namespace puna::http {

enum class IoState {
  kDone,        // `bytes` were moved
  kWantsRead,   // nothing now: again when the socket can be read
  kWantsWrite,  // nothing now: again when the socket can be written
  kEnd,         // the peer sends no more
  kFailed,      // the connection is broken
};

struct IoResult {
  IoState state = IoState::kDone;
  size_t bytes = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;
  /// kDone with 0 bytes once it can read and write.
  virtual IoResult handshake() = 0;
  virtual IoResult read(std::span<char> into) = 0;
  virtual IoResult write(std::string_view bytes) = 0;
  /// Says that no more will be sent; what comes can still be read.
  virtual void end_writing() = 0;
};

/// `fd` is a connected socket that does not block.
std::unique_ptr<Transport> plain_transport(int fd);

/// Certificate and key of a server that speaks TLS 1.2 and later.
class TlsContext {
 public:
  /// PEM files. Throws Error when one cannot be read or they do not belong together.
  TlsContext(const std::filesystem::path& certificate, const std::filesystem::path& key);
  ~TlsContext();
  std::unique_ptr<Transport> transport(int fd) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace puna::http
