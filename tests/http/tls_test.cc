// The same server through TLS, with a certificate made here.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <atomic>
#include <cstdio>
#include <fstream>

#include "base/error.h"
#include "tests/http/support.h"
#include "tests/support/golden.h"

namespace puna::http {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using test::body_of;
using test::Client;
using test::eventually;
using test::get;
using test::post;
using test::RunningServer;
using testing::HasSubstr;

// A key and a certificate that it signs itself, as PEM files.
Tls make_certificate(const fs::path& folder, const std::string& name, const char* passphrase = nullptr) {
  Tls tls;
  tls.certificate = folder / (name + ".pem");
  tls.key = folder / (name + ".key");
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  X509_gmtime_adj(X509_getm_notBefore(certificate), -60);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, key);
  X509_sign(certificate, key, EVP_sha256());
  std::FILE* file = std::fopen(tls.certificate.c_str(), "w");
  PEM_write_X509(file, certificate);
  std::fclose(file);
  file = std::fopen(tls.key.c_str(), "w");
  PEM_write_PrivateKey(file, key, passphrase != nullptr ? EVP_aes_256_cbc() : nullptr,
                       reinterpret_cast<const unsigned char*>(passphrase),
                       passphrase != nullptr ? static_cast<int>(std::string_view(passphrase).size()) : 0, nullptr,
                       nullptr);
  std::fclose(file);
  X509_free(certificate);
  EVP_PKEY_free(key);
  return tls;
}

// TLS over a Client's socket, which waits.
class TlsClient {
 public:
  explicit TlsClient(uint16_t port, int greatest_version = 0)
      : client_(port), context_(SSL_CTX_new(TLS_client_method())), ssl_(nullptr) {
    SSL_CTX_set_min_proto_version(context_, TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context_, greatest_version);
    SSL_CTX_set_cipher_list(context_, "ALL:@SECLEVEL=0");
    ssl_ = SSL_new(context_);
    SSL_set_fd(ssl_, client_.fd());
    connected_ = SSL_connect(ssl_) == 1;
  }
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  bool connected() const { return connected_; }
  std::string version() const { return SSL_get_version(ssl_); }
  void send(std::string_view bytes) {
    ASSERT_EQ(SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())), static_cast<int>(bytes.size()));
  }
  std::string receive_until(std::string_view text) {
    while (received_.find(text) == std::string::npos && receive_some()) {
    }
    return std::exchange(received_, {});
  }
  /// The end must be said by TLS, not by the socket alone.
  std::string receive_all(bool* said_end) {
    int size = 0;
    while ((size = receive_some()) > 0) {
    }
    *said_end = SSL_get_error(ssl_, size) == SSL_ERROR_ZERO_RETURN;
    return std::exchange(received_, {});
  }
  void close() { client_.close(); }

 private:
  int receive_some() {
    char buffer[16384];
    const int size = SSL_read(ssl_, buffer, sizeof buffer);
    if (size > 0) received_.append(buffer, static_cast<size_t>(size));
    return size > 0 ? size : std::min(size, 0);
  }

  Client client_;
  SSL_CTX* context_;
  SSL* ssl_;
  std::string received_;
  bool connected_ = false;
};

void echo_body(const Request& request, const std::shared_ptr<Exchange>& exchange) {
  Reply reply;
  reply.body = request.body;
  exchange->reply(std::move(reply));
}

class TlsServer : public testing::Test {
 protected:
  ServerOptions options() {
    ServerOptions options = RunningServer::any_port();
    options.tls = make_certificate(folder_.path(), "server");
    return options;
  }
  puna::test::TemporaryDirectory folder_;
};

TEST_F(TlsServer, AnswersInTls12And13) {
  RunningServer running(echo_body, options());
  EXPECT_THAT(running.server().url(), HasSubstr("https://127.0.0.1:"));
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client(running.port(), version);
    ASSERT_TRUE(client.connected());
    EXPECT_EQ(client.version(), version == TLS1_2_VERSION ? "TLSv1.2" : "TLSv1.3");
    client.send(post("/", "first"));
    EXPECT_THAT(client.receive_until("first"), HasSubstr("HTTP/1.1 200 OK"));
    const std::string large(3'000'000, 'L');
    client.send(post("/", large, "Connection: close\r\n"));
    bool said_end = false;
    EXPECT_TRUE(body_of(client.receive_all(&said_end)) == large);
    EXPECT_TRUE(said_end);
  }
}

TEST_F(TlsServer, RefusesOlderVersions) {
  RunningServer running(echo_body, options());
  EXPECT_FALSE(TlsClient(running.port(), TLS1_1_VERSION).connected());
}

TEST_F(TlsServer, SeesTheClientLeave) {
  std::atomic<bool> is_held = false, gone = false;
  std::shared_ptr<Exchange> held;
  RunningServer running(
      [&](const Request&, const std::shared_ptr<Exchange>& exchange) {
        exchange->on_gone([&gone] { gone = true; });
        held = exchange;
        is_held = true;
      },
      options());
  TlsClient client(running.port());
  client.send(get("/"));
  ASSERT_TRUE(eventually([&] { return is_held.load(); }));
  EXPECT_FALSE(gone);
  client.close();
  EXPECT_TRUE(eventually([&] { return gone.load(); }));
}

TEST_F(TlsServer, CutsHandshakesThatTakeLongOrAreNone) {
  ServerOptions quick = options();
  quick.limits.header_time = milliseconds(300);
  RunningServer running(echo_body, quick);
  Client silent(running.port());
  EXPECT_TRUE(silent.ends());
  Client plain(running.port());
  plain.send(get("/"));
  EXPECT_TRUE(plain.ends());
}

TEST_F(TlsServer, NeedsACertificateWithItsKey) {
  const auto error_of = [](const fs::path& certificate, const fs::path& key) -> std::string {
    ServerOptions options = RunningServer::any_port();
    options.tls = Tls{certificate, key};
    try {
      Server server(options, echo_body);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  const Tls one = make_certificate(folder_.path(), "one"), other = make_certificate(folder_.path(), "other");
  const Tls locked = make_certificate(folder_.path(), "locked", "secret");
  const fs::path missing = folder_.path() / "missing.pem", rubbish = folder_.path() / "rubbish.pem";
  std::ofstream(rubbish) << "not PEM\n";
  EXPECT_EQ(error_of(one.certificate, one.key), "");
  EXPECT_THAT(error_of(missing, one.key), HasSubstr("missing.pem: no certificate can be read"));
  EXPECT_THAT(error_of(rubbish, one.key), HasSubstr("rubbish.pem: no certificate can be read"));
  EXPECT_THAT(error_of(one.certificate, missing), HasSubstr("missing.pem: no key for"));
  EXPECT_THAT(error_of(one.certificate, other.key), HasSubstr("other.key: no key for"));
  EXPECT_THAT(error_of(locked.certificate, locked.key), HasSubstr("without a passphrase"));
}

}  // namespace
}  // namespace puna::http
