#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <limits>

#include "base/error.h"
#include "http/transport.h"

namespace puna::http {
namespace {

struct Free {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(BIO_METHOD* method) const { BIO_meth_free(method); }
};

int fd_of(BIO* bio) { return static_cast<int>(reinterpret_cast<intptr_t>(BIO_get_data(bio))); }

// OpenSSL's own BIO of a socket would raise SIGPIPE when the client has left.
int bio_write(BIO* bio, const char* bytes, size_t size, size_t* written) {
  BIO_clear_retry_flags(bio);
  const ssize_t sent = send(fd_of(bio), bytes, size, MSG_NOSIGNAL);
  if (sent < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_write(bio);
  if (sent < 0) return 0;
  *written = static_cast<size_t>(sent);
  return 1;
}

int bio_read(BIO* bio, char* into, size_t size, size_t* got) {
  BIO_clear_retry_flags(bio);
  const ssize_t received = recv(fd_of(bio), into, size, 0);
  if (received < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_retry_read(bio);
  if (received <= 0) return 0;
  *got = static_cast<size_t>(received);
  return 1;
}

long bio_control(BIO*, int command, long, void*) { return command == BIO_CTRL_FLUSH ? 1 : 0; }

class Tls final : public Transport {
 public:
  Tls(SSL_CTX* context, BIO_METHOD* method, int fd) : fd_(fd), ssl_(SSL_new(context)) {
    BIO* bio = ssl_ ? BIO_new(method) : nullptr;
    if (!bio) throw std::bad_alloc();
    BIO_set_data(bio, reinterpret_cast<void*>(static_cast<intptr_t>(fd)));
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl_.get(), bio, bio);
    SSL_set_accept_state(ssl_.get());
  }

  IoResult handshake() override {
    ERR_clear_error();
    return result(SSL_do_handshake(ssl_.get()), 0);
  }

  IoResult read(std::span<char> into) override {
    ERR_clear_error();
    size_t size = 0;
    const int returned = SSL_read_ex(ssl_.get(), into.data(), into.size(), &size);
    return result(returned, size);
  }

  IoResult write(std::string_view bytes) override {
    ERR_clear_error();
    size_t size = 0;
    const int returned = SSL_write_ex(ssl_.get(), bytes.data(), bytes.size(), &size);
    return result(returned, size);
  }

  void end_writing() override {
    ERR_clear_error();
    if (!broken_) SSL_shutdown(ssl_.get());
    shutdown(fd_, SHUT_WR);
  }

 private:
  IoResult result(int returned, size_t size) {
    if (returned > 0) return {IoState::kDone, size};
    switch (SSL_get_error(ssl_.get(), returned)) {
      case SSL_ERROR_WANT_READ:
        return {IoState::kWantsRead};
      case SSL_ERROR_WANT_WRITE:
        return {IoState::kWantsWrite};
      case SSL_ERROR_ZERO_RETURN:
        return {IoState::kEnd};
      default:
        broken_ = true;
        return {IoState::kFailed};
    }
  }

  int fd_;
  std::unique_ptr<SSL, Free> ssl_;
  bool broken_ = false;
};

std::string last_error() {
  const unsigned long code = ERR_peek_last_error();
  const char* reason = ERR_reason_error_string(code);
  return reason != nullptr ? reason : "unknown error";
}

}  // namespace

struct TlsContext::State {
  std::unique_ptr<SSL_CTX, Free> context;
  std::unique_ptr<BIO_METHOD, Free> method;
};

TlsContext::TlsContext(const std::filesystem::path& certificate, const std::filesystem::path& key)
    : state_(std::make_unique<State>()) {
  state_->context.reset(SSL_CTX_new(TLS_server_method()));
  state_->method.reset(BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket without SIGPIPE"));
  PUNA_CHECK(state_->context && state_->method, "OpenSSL: {}", last_error());
  BIO_meth_set_write_ex(state_->method.get(), bio_write);
  BIO_meth_set_read_ex(state_->method.get(), bio_read);
  BIO_meth_set_ctrl(state_->method.get(), bio_control);

  SSL_CTX* context = state_->context.get();
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  SSL_CTX_set_mode(context,
                   SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);  // tickets need no memory here
  // A key with a passphrase would ask for it at the terminal.
  SSL_CTX_set_default_passwd_cb(context, [](char*, int, int, void*) { return -1; });
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(context, certificate.c_str()) != 1)
    fail("http", "{}: no certificate can be read ({}); give a PEM file", certificate.string(), last_error());
  if (SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM) != 1)
    fail("http", "{}: no key for {} can be read ({}); give a PEM file without a passphrase", key.string(),
         certificate.string(), last_error());
}

TlsContext::~TlsContext() = default;

std::unique_ptr<Transport> TlsContext::transport(int fd) const {
  return std::make_unique<Tls>(state_->context.get(), state_->method.get(), fd);
}

}  // namespace puna::http
