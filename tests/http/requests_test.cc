// Requests as they come over a socket: whole, in parts, in a row, and malformed.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <atomic>

#include "base/json.h"
#include "tests/http/support.h"

namespace puna::http {
namespace {

using test::body_of;
using test::Client;
using test::get;
using test::post;
using test::RunningServer;
using test::status_of;

// What came, said back.
void echo(const Request& request, const std::shared_ptr<Exchange>& exchange) {
  Json text;
  text["method"] = request.method;
  text["path"] = request.path;
  text["query"] = request.query;
  text["headers"] = request.headers;
  text["body"] = request.body;
  text["peer"] = request.peer;
  Reply reply;
  reply.body = text.dump();
  exchange->reply(std::move(reply));
}

Json echoed(const std::string& answer) {
  EXPECT_EQ(status_of(answer), 200) << answer;
  return parse_json(body_of(answer), "answer");
}

void expect_error(const std::string& answer, int status) {
  EXPECT_EQ(status_of(answer), status) << answer;
  EXPECT_NE(answer.find("\r\nConnection: close\r\n"), std::string::npos) << answer;
  EXPECT_NE(answer.find("\r\nContent-Type: application/json\r\n"), std::string::npos) << answer;
  const Json error = parse_json(body_of(answer), "answer").at("error");
  EXPECT_EQ(error.at("type"), status >= 500 ? "server_error" : "invalid_request_error");
  EXPECT_TRUE(error.at("param").is_null() && error.at("code").is_null() && !error.at("message").empty());
}

TEST(Requests, AreGivenWholeWithDecodedTargets) {
  RunningServer running(echo);
  Client client(running.port());
  client.send(post("/a%20b/c?x=1&y=a+b%26&x=2&flag", "the body", "X-One: 1\r\nx-one: 2\r\n"));
  const Json seen = echoed(client.receive_answer());
  EXPECT_EQ(seen["method"], "POST");
  EXPECT_EQ(seen["path"], "/a b/c");
  EXPECT_EQ(seen["query"], (Json{{"x", "2"}, {"y", "a b&"}, {"flag", ""}}));
  EXPECT_EQ(seen["headers"]["x-one"], "1, 2");
  EXPECT_EQ(seen["headers"]["host"], "test");
  EXPECT_EQ(seen["body"], "the body");
  EXPECT_EQ(seen["peer"], "127.0.0.1");
}

TEST(Requests, ChunkedBodiesArePutTogether) {
  RunningServer running(echo);
  Client client(running.port());
  client.send(
      "POST /c HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
      "5;name=\"value\"\r\nHello\r\n7\r\n, world\r\n0\r\nX-Trailer: late\r\n\r\n");
  const Json seen = echoed(client.receive_answer());
  EXPECT_EQ(seen["body"], "Hello, world");
  EXPECT_FALSE(seen["headers"].contains("x-trailer"));
  client.send(get("/next"));
  EXPECT_EQ(echoed(client.receive_answer())["path"], "/next");
}

TEST(Requests, CanBeSplitAtEveryByte) {
  RunningServer running(echo);
  const std::string plain = post("/split?a=b", "body of it");
  const std::string chunked =
      "POST /split HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"
      "a\r\nbody of it\r\n0\r\n\r\n";
  for (const std::string& request : {plain, chunked}) {
    Client client(running.port());
    for (size_t cut = 1; cut < request.size(); ++cut) {
      client.send(std::string_view(request).substr(0, cut));
      // The server has seen the first part when it has answered somebody else.
      Client other(running.port());
      other.send(get("/other"));
      other.receive_answer();
      client.send(std::string_view(request).substr(cut));
      ASSERT_EQ(echoed(client.receive_answer())["body"], "body of it") << "split at " << cut;
    }
  }
}

TEST(Requests, InARowAreAnsweredInOrder) {
  RunningServer running(echo);
  Client client(running.port());
  std::string all;
  for (int i = 0; i < 100; ++i) {
    const std::string path = fmt::format("/{}", i);
    all += i % 2 == 0 ? get(path) : post(path, "b");
  }
  client.send(all);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(echoed(client.receive_answer())["path"], fmt::format("/{}", i));
}

TEST(Requests, EmptyLinesBeforeOneArePassedOver) {
  RunningServer running(echo);
  Client client(running.port());
  client.send(fmt::format("\r\n\r\n{}\r\n{}", get("/a"), get("/b")));
  EXPECT_EQ(echoed(client.receive_answer())["path"], "/a");
  EXPECT_EQ(echoed(client.receive_answer())["path"], "/b");
}

TEST(Requests, AbsoluteTargetsAreTaken) {
  RunningServer running(echo);
  Client client(running.port());
  client.send(get("http://example.org:80/p?q=1"));
  EXPECT_EQ(echoed(client.receive_answer())["path"], "/p");
  client.send(get("HTTP://example.org"));
  EXPECT_EQ(echoed(client.receive_answer())["path"], "/");
}

TEST(Requests, EndOfWritingBehindThemIsNoReasonNotToAnswer) {
  RunningServer running(echo);
  Client client(running.port());
  client.send(get("/a") + get("/b"));
  client.end_writing();
  EXPECT_EQ(echoed(client.receive_answer())["path"], "/a");
  EXPECT_EQ(echoed(client.receive_answer())["path"], "/b");
  EXPECT_TRUE(client.ends());
}

TEST(Requests, MalformedOnesAreRefused) {
  std::atomic<int> handled = 0;
  RunningServer running([&](const Request& request, const std::shared_ptr<Exchange>& exchange) {
    ++handled;
    echo(request, exchange);
  });
  const std::pair<int, std::string> cases[] = {
      {400, "rubbish\r\n\r\n"},
      {400, "GET no-path HTTP/1.1\r\nHost: t\r\n\r\n"},
      {400, "GET /%zz HTTP/1.1\r\nHost: t\r\n\r\n"},
      {400, "GET /%00 HTTP/1.1\r\nHost: t\r\n\r\n"},
      {400, "GET /?a=%2 HTTP/1.1\r\nHost: t\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: t\r\nbad name: x\r\n\r\n"},
      {400, "GET / HTTP/1.1\r\nHost: t\r\nContent-Length: -1\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"},
      {400, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {400, "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"},
      {400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
      {417, "POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\nExpect: the-best\r\n\r\nabc"},
      {501, "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
      {501, "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip\r\n\r\nabc"},
      {505, "GET / HTTP/2.0\r\nHost: t\r\n\r\n"},
  };
  for (const auto& [status, bytes] : cases) {
    SCOPED_TRACE(bytes);
    Client client(running.port());
    client.send(bytes + get("/hidden"));
    expect_error(client.receive_all(), status);
  }
  EXPECT_EQ(handled, 0);
}

TEST(Requests, ExpectContinueIsAnsweredBeforeTheBody) {
  RunningServer running(echo);
  Client client(running.port());
  client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
  EXPECT_EQ(client.receive_answer(), "HTTP/1.1 100 Continue\r\n\r\n");
  client.send("body");
  EXPECT_EQ(echoed(client.receive_answer())["body"], "body");
  // Nothing is said when the body is there already.
  client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\nbody");
  EXPECT_EQ(echoed(client.receive_answer())["body"], "body");
}

}  // namespace
}  // namespace puna::http
