// Answers: whole, in pieces, late, never, and to clients that leave.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <sys/socket.h>

#include <atomic>
#include <cerrno>
#include <mutex>

#include "base/json.h"
#include "tests/http/support.h"

namespace puna::http {
namespace {

using std::chrono::milliseconds;
using test::body_of;
using test::Client;
using test::eventually;
using test::get;
using test::RunningServer;
using test::status_of;

// Keeps each request's exchange for the test.
class Kept {
 public:
  Handler handler() {
    return [this](const Request&, const std::shared_ptr<Exchange>& exchange) {
      const std::lock_guard lock(mutex_);
      exchanges_.push_back(exchange);
    };
  }
  std::shared_ptr<Exchange> next() {
    std::shared_ptr<Exchange> exchange;
    EXPECT_TRUE(eventually([&] {
      const std::lock_guard lock(mutex_);
      if (exchanges_.empty()) return false;
      exchange = std::move(exchanges_.front());
      exchanges_.erase(exchanges_.begin());
      return true;
    }));
    return exchange;
  }

 private:
  std::mutex mutex_;
  std::vector<std::shared_ptr<Exchange>> exchanges_;
};

Reply text(std::string body, int status = 200) {
  Reply reply;
  reply.status = status;
  reply.body = std::move(body);
  reply.content_type = "text/plain";
  return reply;
}

Reply events() {
  Reply head;
  head.content_type = "text/event-stream";
  return head;
}

std::string no_length_or_chunks(const std::string& answer) {
  EXPECT_EQ(answer.find("Content-Length"), std::string::npos) << answer;
  EXPECT_EQ(answer.find("Transfer-Encoding"), std::string::npos) << answer;
  return answer;
}

TEST(Answers, HaveStatusLengthTypeDateAndTheirOwnHeaders) {
  RunningServer running([](const Request&, const std::shared_ptr<Exchange>& exchange) {
    Reply reply = text("hello", 404);
    reply.headers = {{"X-One", "1"}, {"X-Bad", "a\r\nInjected: b"}, {"bad name", "c"}};
    exchange->reply(std::move(reply));
    exchange->reply(text("a second answer"));
  });
  Client client(running.port());
  client.send(get("/"));
  const std::string answer = client.receive_answer();
  EXPECT_TRUE(answer.starts_with("HTTP/1.1 404 Not Found\r\n")) << answer;
  for (const char* line : {"Content-Length: 5", "Content-Type: text/plain", "X-One: 1", "Date: "})
    EXPECT_NE(answer.find(fmt::format("\r\n{}", line)), std::string::npos) << answer;
  for (const char* absent : {"Injected", "bad name", "Connection", "second"})
    EXPECT_EQ(answer.find(absent), std::string::npos) << answer;
  EXPECT_EQ(body_of(answer), "hello");
}

TEST(Answers, LargeOnesArriveWhole) {
  const std::string large(30'000'000, 'z');
  RunningServer running(
      [&](const Request&, const std::shared_ptr<Exchange>& exchange) { exchange->reply(text(large)); });
  Client client(running.port());
  for (int i = 0; i < 2; ++i) {
    client.send(get("/"));
    EXPECT_TRUE(body_of(client.receive_answer()) == large);
  }
}

TEST(Answers, ToHeadAndWithoutContentHaveNoBody) {
  Kept kept;
  RunningServer running(kept.handler());
  Client client(running.port());
  client.send("HEAD / HTTP/1.1\r\nHost: t\r\n\r\n");
  kept.next()->reply(text("hello"));
  EXPECT_NE(client.receive_answer(true).find("Content-Length: 5\r\n"), std::string::npos);
  client.send("HEAD / HTTP/1.1\r\nHost: t\r\n\r\n");
  {
    const auto streamed = kept.next();
    streamed->begin(text(""));
    streamed->write("piece");
    EXPECT_TRUE(eventually([&] { return streamed->unsent_bytes() == 0; }));
    streamed->end();
  }
  EXPECT_EQ(status_of(client.receive_answer(true)), 200);
  client.send(get("/"));
  kept.next()->reply(text("never sent", 204));
  no_length_or_chunks(client.receive_answer(true));
  client.send(get("/"));
  kept.next()->reply(text("last"));
  EXPECT_EQ(body_of(client.receive_answer()), "last");
}

TEST(Answers, ConnectionCloseIsKept) {
  RunningServer running([](const Request&, const std::shared_ptr<Exchange>& exchange) { exchange->reply(text("a")); });
  Client client(running.port());
  client.send(get("/", "Connection: close\r\n"));
  const std::string answer = client.receive_all();
  EXPECT_EQ(body_of(answer), "a");
  EXPECT_NE(answer.find("\r\nConnection: close\r\n"), std::string::npos) << answer;
}

TEST(Answers, ToHttp10CloseUnlessAskedOtherwise) {
  RunningServer running([](const Request& request, const std::shared_ptr<Exchange>& exchange) {
    if (request.path == "/whole") return exchange->reply(text("a"));
    exchange->begin(text(""));
    exchange->write("b");
    exchange->write("c");
    exchange->end();
  });
  Client plain(running.port());
  plain.send("GET /whole HTTP/1.0\r\n\r\n");
  EXPECT_EQ(body_of(plain.receive_all()), "a");
  Client kept(running.port());
  for (int i = 0; i < 2; ++i) {
    kept.send("GET /whole HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    const std::string answer = kept.receive_answer();
    EXPECT_NE(answer.find("\r\nConnection: keep-alive\r\n"), std::string::npos) << answer;
  }
  kept.send("GET /streamed HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(body_of(no_length_or_chunks(kept.receive_all())), "bc");
}

TEST(Streams, SendEachPieceAtOnce) {
  Kept kept;
  RunningServer running(kept.handler());
  Client client(running.port());
  client.send(get("/"));
  const auto exchange = kept.next();
  exchange->begin(events());
  client.receive_until("\r\n\r\n");
  for (const char* piece : {"data: 1\n\n", "data: 2\n\n", "data: 3\n\n"}) {
    exchange->write(piece);
    client.receive_until(piece);
    EXPECT_TRUE(eventually([&] { return exchange->unsent_bytes() == 0; }));
  }
  exchange->end();
  exchange->write("too late");
  EXPECT_EQ(body_of(client.receive_answer()), "data: 1\n\ndata: 2\n\ndata: 3\n\n");
  client.send(get("/next"));
  kept.next()->reply(text("next"));
  EXPECT_EQ(body_of(client.receive_answer()), "next");
}

TEST(Streams, ManyPiecesFromAnotherThreadArriveInOrder) {
  Kept kept;
  RunningServer running(kept.handler());
  Client client(running.port());
  client.send(get("/"));
  const auto exchange = kept.next();
  std::string expected;
  for (int i = 0; i < 50'000; ++i) expected += fmt::format("{}\n", i);
  std::thread writing([&] {
    exchange->begin(text(""));
    for (int i = 0; i < 50'000; ++i) exchange->write(fmt::format("{}\n", i));
    exchange->end();
  });
  EXPECT_TRUE(body_of(client.receive_answer()) == expected);
  writing.join();
}

TEST(Streams, BackPressureIsSeenAndPasses) {
  Kept kept;
  RunningServer running(kept.handler());
  Client client(running.port(), "127.0.0.1", 4096);
  client.send(get("/"));
  const auto exchange = kept.next();
  exchange->begin(text(""));
  constexpr size_t kTotal = 20'000'000;
  for (size_t written = 0; written < kTotal; written += 10'000) exchange->write(std::string(10'000, 'p'));
  // What the kernel does not take stays, for as long as nobody reads.
  EXPECT_TRUE(eventually([&] { return exchange->unsent_bytes() < kTotal; }));
  EXPECT_GT(exchange->unsent_bytes(), kTotal / 2);
  exchange->end();
  EXPECT_EQ(body_of(client.receive_answer()).size(), kTotal);
  EXPECT_EQ(exchange->unsent_bytes(), 0u);
}

TEST(Streams, SilentEventStreamsArePinged) {
  Kept kept;
  ServerOptions options = RunningServer::any_port();
  options.limits.ping_time = milliseconds(50);
  RunningServer running(kept.handler(), options);
  Client client(running.port());
  client.send(get("/"));
  const auto exchange = kept.next();
  exchange->begin(events());
  client.receive_until(": ping\n\n\r\n8\r\n: ping\n\n\r\n");
  exchange->write("data: x\n\n");
  exchange->end();
  const std::string body = body_of(client.receive_answer());
  EXPECT_TRUE(body.starts_with(": ping\n\n: ping\n\n")) << body;
  EXPECT_NE(body.find(": ping\n\ndata: x\n\n"), std::string::npos) << body;

  // Other streams are left as they are.
  client.send(get("/"));
  const auto plain = kept.next();
  plain->begin(text(""));
  client.receive_until("\r\n\r\n");
  std::this_thread::sleep_for(milliseconds(200));
  plain->end();
  EXPECT_EQ(body_of(client.receive_answer()), "");
}

TEST(Failures, AnExceptionIsStatus500) {
  std::shared_ptr<Exchange> kept;
  RunningServer running([&](const Request& request, const std::shared_ptr<Exchange>& exchange) {
    if (request.path == "/kept") kept = exchange;
    if (request.path == "/fine") return exchange->reply(text("fine"));
    throw std::runtime_error("broken on purpose");
  });
  Client client(running.port());
  for (const char* path : {"/", "/kept"}) {
    client.send(get(path));
    const std::string answer = client.receive_answer();
    EXPECT_EQ(status_of(answer), 500);
    EXPECT_EQ(parse_json(body_of(answer), "answer").at("error").at("type"), "server_error");
    EXPECT_EQ(answer.find("purpose"), std::string::npos);
  }
  kept->reply(text("too late"));
  client.send(get("/fine"));
  EXPECT_EQ(body_of(client.receive_answer()), "fine");
}

TEST(Failures, ADroppedExchangeIsStatus500) {
  Kept kept;
  RunningServer running(kept.handler());
  Client client(running.port());
  client.send(get("/"));
  kept.next().reset();
  EXPECT_EQ(status_of(client.receive_answer()), 500);
  client.send(get("/"));
  kept.next()->reply(text("fine"));
  EXPECT_EQ(body_of(client.receive_answer()), "fine");
}

TEST(Failures, ADroppedStreamIsCut) {
  Kept kept;
  RunningServer running(kept.handler());
  Client client(running.port());
  client.send(get("/"));
  auto exchange = kept.next();
  exchange->begin(text(""));
  exchange->write("half");
  exchange.reset();
  const std::string chunked = client.receive_all();
  EXPECT_NE(chunked.find("4\r\nhalf\r\n"), std::string::npos) << chunked;
  EXPECT_EQ(chunked.find("0\r\n\r\n"), std::string::npos) << chunked;

  // Where only the end of the connection ends it, it ends with a reset.
  Client old(running.port());
  old.send("GET / HTTP/1.0\r\n\r\n");
  exchange = kept.next();
  exchange->begin(text(""));
  exchange->write("half");
  old.receive_until("half");
  exchange.reset();
  char byte = 0;
  EXPECT_EQ(recv(old.fd(), &byte, 1, 0), -1);
  EXPECT_EQ(errno, ECONNRESET);
}

TEST(Leaving, IsSeenWhileTheAnswerIsStillToCome) {
  Kept kept;
  RunningServer running(kept.handler());
  for (const bool begun : {false, true}) {
    for (const bool by_reset : {false, true}) {
      SCOPED_TRACE(fmt::format("begun {}, by reset {}", begun, by_reset));
      Client client(running.port());
      client.send(get("/"));
      const auto exchange = kept.next();
      std::atomic<int> called = 0;
      exchange->on_gone([&] { ++called; });
      if (begun) {
        exchange->begin(events());
        client.receive_until("\r\n\r\n");
      }
      EXPECT_FALSE(exchange->gone());
      if (by_reset)
        client.reset();
      else
        client.close();
      EXPECT_TRUE(eventually([&] { return called == 1; }));
      EXPECT_TRUE(exchange->gone());
      if (!begun) exchange->begin(events());
      exchange->write("nobody reads this");
      EXPECT_EQ(exchange->unsent_bytes(), 0u);
      int at_once = 0;
      exchange->on_gone([&] { ++at_once; });
      EXPECT_EQ(at_once, 1);
      exchange->end();
    }
  }
  EXPECT_TRUE(eventually([&] { return running.server().stats().open_connections == 0; }));
  EXPECT_EQ(running.server().stats().open_requests, 0);
}

TEST(Leaving, IsSeenBehindTheNextRequestsBytes) {
  Kept kept;
  RunningServer running(kept.handler());
  Client client(running.port());
  client.send(get("/a") + get("/b"));
  const auto exchange = kept.next();
  std::atomic<int> called = 0;
  exchange->on_gone([&] { ++called; });
  client.send(get("/c"));
  client.end_writing();
  EXPECT_TRUE(eventually([&] { return called == 1; }));
}

TEST(Leaving, RequestsThatComeWhileAnAnswerIsAwaitedAreKept) {
  Kept kept;
  RunningServer running(kept.handler());
  Client client(running.port());
  client.send(get("/a"));
  const auto first = kept.next();
  std::string more;
  for (int i = 0; i < 3000; ++i) more += get("/more", "X-Padding: 0123456789012345678901234567890123456789\r\n");
  std::thread sending([&] { client.send(more); });
  first->reply(text("first"));
  EXPECT_EQ(body_of(client.receive_answer()), "first");
  for (int i = 0; i < 3000; ++i) {
    kept.next()->reply(text(std::to_string(i)));
    ASSERT_EQ(body_of(client.receive_answer()), std::to_string(i));
  }
  sending.join();
}

TEST(Leaving, AfterTheAnswerCallsNothing) {
  Kept kept;
  std::atomic<int> called = 0;
  RunningServer running(kept.handler());
  {
    Client client(running.port());
    client.send(get("/"));
    const auto exchange = kept.next();
    exchange->on_gone([&] { ++called; });
    exchange->reply(text("a"));
    EXPECT_EQ(body_of(client.receive_answer()), "a");
  }
  EXPECT_TRUE(eventually([&] { return running.server().stats().open_connections == 0; }));
  EXPECT_EQ(called, 0);
}

}  // namespace
}  // namespace puna::http
