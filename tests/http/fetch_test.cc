#include "http/fetch.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/error.h"
#include "tests/http/support.h"

namespace puna::http {
namespace {

using test::RunningServer;

TEST(Fetch, PublicAddressesAreToldFromOthers) {
  for (const char* text : {"8.8.8.8", "93.184.216.34", "172.15.0.1", "2606:4700::1111", "::ffff:8.8.8.8"})
    EXPECT_TRUE(is_public_address(text)) << text;
  for (const char* text : {"127.0.0.1",
                           "10.1.2.3",
                           "172.16.0.1",
                           "172.31.255.255",
                           "192.168.1.1",
                           "169.254.169.254",
                           "100.64.0.1",
                           "0.0.0.0",
                           "224.0.0.1",
                           "255.255.255.255",
                           "::1",
                           "::",
                           "fe80::1",
                           "fc00::1",
                           "fd12::1",
                           "ff02::1",
                           "::ffff:127.0.0.1",
                           "::ffff:10.0.0.1",
                           "64:ff9b::a00:1",
                           "2002:7f00:1::",
                           "2001:db8::1",
                           "localhost",
                           ""})
    EXPECT_FALSE(is_public_address(text)) << text;
}

TEST(Fetch, UrlsInTheirParts) {
  const auto url = parse_url("https://a.example:8443/x/y.png?q=1#top");
  ASSERT_TRUE(url);
  EXPECT_TRUE(url->tls);
  EXPECT_EQ(url->host, "a.example");
  EXPECT_EQ(url->port, "8443");
  EXPECT_EQ(url->target, "/x/y.png?q=1");
  EXPECT_EQ(parse_url("http://a?q")->target, "/?q");
  EXPECT_EQ(parse_url("http://[::1]:80/")->host, "::1");
  for (const char* text : {"ftp://a/", "http://", "http://user@a/", "http://a:b/", "http://a:0/", "http://a:70000/",
                           "http://a/ b", "http://a/\r\nX: y", "http://[::1", "//a/", "http://a\\b/"})
    EXPECT_FALSE(parse_url(text)) << text;
}

Reply with_body(std::string body) {
  Reply reply;
  reply.body = std::move(body);
  return reply;
}

Reply moved_to(const std::string& where) {
  Reply reply;
  reply.status = 302;
  reply.headers = {{"Location", where}};
  return reply;
}

Reply not_found() {
  Reply reply;
  reply.status = 404;
  return reply;
}

class FetchFrom : public testing::Test {
 protected:
  FetchFrom()
      : running_([this](const Request& request, const std::shared_ptr<Exchange>& exchange) {
          if (request.path == "/picture") return exchange->reply(with_body("bytes of a picture"));
          if (request.path == "/large") return exchange->reply(with_body(std::string(5000, 'x')));
          if (request.path == "/moved") return exchange->reply(moved_to("/picture"));
          if (request.path == "/away") return exchange->reply(moved_to("http://127.0.0.2/picture"));
          if (request.path == "/file") return exchange->reply(moved_to("file:///etc/passwd"));
          if (request.path == "/round") return exchange->reply(moved_to("/round"));
          if (request.path == "/slow") return slow_.push_back(exchange);
          exchange->reply(not_found());
        }) {
    options_.most_bytes = 1000;
    options_.time = std::chrono::seconds(20);
    options_.allowed = [](std::string_view address) { return address == "127.0.0.1"; };
  }

  std::string url(const std::string& path) const { return fmt::format("http://127.0.0.1:{}{}", running_port(), path); }
  uint16_t running_port() const { return const_cast<RunningServer&>(running_).port(); }
  std::string error_of(const std::string& path) {
    try {
      fetch(url(path), options_);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  std::vector<std::shared_ptr<Exchange>> slow_;
  RunningServer running_;
  FetchOptions options_;
};

TEST_F(FetchFrom, TheBodyAlsoByARedirect) {
  EXPECT_EQ(fetch(url("/picture"), options_), "bytes of a picture");
  EXPECT_EQ(fetch(url("/moved"), options_), "bytes of a picture");
}

TEST_F(FetchFrom, NothingOfAPrivateNetworkAlsoByARedirect) {
  EXPECT_THROW(fetch(url("/picture")), Error);
  EXPECT_THROW(fetch(fmt::format("http://localhost:{}/picture", running_port())), Error);
  EXPECT_NE(error_of("/away").find("private network"), std::string::npos) << error_of("/away");
  EXPECT_NE(error_of("/file").find("no http or https URL"), std::string::npos) << error_of("/file");
}

TEST_F(FetchFrom, Limits) {
  EXPECT_NE(error_of("/large").find("more than"), std::string::npos) << error_of("/large");
  EXPECT_NE(error_of("/none").find("404"), std::string::npos) << error_of("/none");
  EXPECT_NE(error_of("/round").find("more than 3 times"), std::string::npos) << error_of("/round");
  options_.time = std::chrono::milliseconds(300);
  EXPECT_NE(error_of("/slow").find("within 300 ms"), std::string::npos) << error_of("/slow");
  const std::atomic<bool> stop = true;
  options_.time = std::chrono::hours(1);
  options_.stop = &stop;
  EXPECT_NE(error_of("/slow").find("did not come"), std::string::npos);
}

}  // namespace
}  // namespace puna::http
