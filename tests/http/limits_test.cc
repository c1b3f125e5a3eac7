// Every limit of server.h, and what is said when it is met.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <mutex>
#include <thread>

#include "base/json.h"
#include "tests/http/support.h"

namespace puna::http {
namespace {

using std::chrono::milliseconds;
using test::body_of;
using test::Client;
using test::eventually;
using test::get;
using test::post;
using test::RunningServer;
using test::status_of;

void answer_size(const Request& request, const std::shared_ptr<Exchange>& exchange) {
  Reply reply;
  reply.body = std::to_string(request.body.size());
  exchange->reply(std::move(reply));
}

ServerOptions with(const std::function<void(Limits&)>& change) {
  ServerOptions options = RunningServer::any_port();
  change(options.limits);
  return options;
}

std::string chunk(size_t size) { return fmt::format("{:x}\r\n{}\r\n", size, std::string(size, 'b')); }

constexpr const char* kChunkedPost = "POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n";

void expect_refused(Client& client, int status) {
  const std::string answer = client.receive_all();
  EXPECT_EQ(status_of(answer), status) << answer;
  EXPECT_NE(answer.find("\r\nConnection: close\r\n"), std::string::npos) << answer;
  EXPECT_FALSE(parse_json(body_of(answer), "answer").at("error").at("message").empty());
}

TEST(Limits, HeaderBytes) {
  RunningServer running(answer_size, with([](Limits& limits) { limits.header_bytes = 1000; }));
  const auto request = [](size_t size) { return get("/", fmt::format("X: {}\r\n", std::string(size, 'x'))); };
  Client fits(running.port());
  fits.send(request(1000 - request(0).size()));
  EXPECT_EQ(status_of(fits.receive_answer()), 200);
  for (const size_t size : {1001 - request(0).size(), size_t{100'000}}) {
    Client client(running.port());
    client.send(request(size));
    expect_refused(client, 431);
  }
  Client endless(running.port());
  endless.send(std::string(2000, 'A'));
  expect_refused(endless, 431);
}

TEST(Limits, AnnouncedBodyBytesAreRefusedBeforeTheyCome) {
  RunningServer running(answer_size, with([](Limits& limits) { limits.body_bytes = 1000; }));
  Client fits(running.port());
  fits.send(post("/", std::string(1000, 'b')));
  EXPECT_EQ(body_of(fits.receive_answer()), "1000");
  Client client(running.port());
  client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n");
  expect_refused(client, 413);
  // The answer arrives although the client goes on sending.
  Client sending(running.port());
  sending.send(post("/", std::string(4'000'000, 'b')));
  sending.end_writing();
  expect_refused(sending, 413);
}

TEST(Limits, ChunkedBodyBytes) {
  RunningServer running(answer_size, with([](Limits& limits) { limits.body_bytes = 1000; }));
  Client fits(running.port());
  fits.send(kChunkedPost + chunk(600) + chunk(400) + "0\r\n\r\n");
  EXPECT_EQ(body_of(fits.receive_answer()), "1000");
  Client client(running.port());
  client.send(kChunkedPost + chunk(600) + chunk(401));
  expect_refused(client, 413);
}

TEST(Limits, EndlessChunkExtensionsAndTrailers) {
  RunningServer running(answer_size, with([](Limits& limits) { limits.header_bytes = 1000; }));
  Client extension(running.port());
  extension.send(kChunkedPost + std::string("5;") + std::string(3000, 'x'));
  expect_refused(extension, 400);
  Client trailer(running.port());
  trailer.send(kChunkedPost + std::string("0\r\nX: ") + std::string(3000, 'x'));
  expect_refused(trailer, 400);
}

TEST(Limits, BytesOfAllBodies) {
  std::shared_ptr<Exchange> held;
  std::shared_ptr<void> body;
  std::atomic<bool> is_held = false;
  RunningServer running(
      [&](const Request& request, const std::shared_ptr<Exchange>& exchange) {
        if (request.path != "/hold") return answer_size(request, exchange);
        held = exchange;
        body = request.held;
        is_held = true;
      },
      with([](Limits& limits) { limits.all_bodies_bytes = 1500; }));
  Client first(running.port());
  first.send(post("/hold", std::string(1000, 'b')));
  ASSERT_TRUE(eventually([&] { return is_held.load(); }));

  Client announced(running.port());
  announced.send(post("/", std::string(501, 'b')));
  const std::string refused = announced.receive_all();
  EXPECT_EQ(status_of(refused), 503);
  EXPECT_NE(refused.find("\r\nRetry-After: "), std::string::npos) << refused;
  EXPECT_EQ(parse_json(body_of(refused), "answer").at("error").at("type"), "server_error");
  Client chunked(running.port());
  chunked.send(kChunkedPost + chunk(501) + "0\r\n\r\n");
  expect_refused(chunked, 503);
  Client fits(running.port());
  fits.send(post("/", std::string(500, 'b')));
  EXPECT_EQ(body_of(fits.receive_answer()), "500");

  // The bytes are free again once the handler has let go of the body.
  body.reset();
  held->reply({});
  EXPECT_EQ(status_of(first.receive_answer()), 200);
  first.send(post("/", std::string(1500, 'b')));
  EXPECT_EQ(body_of(first.receive_answer()), "1500");
}

TEST(Limits, ABodyThatAHandlerKeepsCountsBeyondItsClient) {
  std::mutex mutex;
  std::shared_ptr<void> kept;
  std::atomic<bool> is_kept = false, is_gone = false;
  RunningServer running(
      [&](const Request& request, const std::shared_ptr<Exchange>& exchange) {
        if (request.path != "/keep") return answer_size(request, exchange);
        const std::lock_guard lock(mutex);
        kept = request.held;
        exchange->on_gone([&] { is_gone = true; });
        is_kept = true;
        std::thread([exchange, &is_gone] {
          while (!is_gone) std::this_thread::sleep_for(milliseconds(5));
        }).detach();
      },
      with([](Limits& limits) { limits.all_bodies_bytes = 1500; }));
  {
    Client first(running.port());
    first.send(post("/keep", std::string(1000, 'b')));
    ASSERT_TRUE(eventually([&] { return is_kept.load(); }));
  }
  ASSERT_TRUE(eventually([&] { return is_gone.load(); }));
  Client second(running.port());
  second.send(post("/", std::string(501, 'b')));
  EXPECT_EQ(status_of(second.receive_all()), 503);
  {
    const std::lock_guard lock(mutex);
    kept.reset();
  }
  Client third(running.port());
  third.send(post("/", std::string(1500, 'b')));
  EXPECT_EQ(body_of(third.receive_answer()), "1500");
}

/// An answer as large as the path says.
void large_answer(const Request& request, const std::shared_ptr<Exchange>& exchange) {
  Reply reply;
  reply.body = std::string(std::stoul(request.path.substr(1)), 'a');
  exchange->reply(std::move(reply));
}

TEST(Limits, WhoReadsInDropsIsCut) {
  RunningServer running(large_answer, with([](Limits& limits) { limits.write_time = milliseconds(500); }));
  Client drops(running.port(), "127.0.0.1", 4096);
  drops.send(get("/4000000"));
  EXPECT_TRUE(eventually([&] {
    std::array<char, 3000> buffer;
    std::this_thread::sleep_for(milliseconds(100));
    drops.send_some("x");  // so that the server looks whether it can send, however little
    return ::recv(drops.fd(), buffer.data(), buffer.size(), 0) <= 0;
  }));
  Client whole(running.port());
  whole.send(get("/4000000"));
  EXPECT_EQ(whole.receive_answer().substr(0, 12), "HTTP/1.1 200");
}

TEST(Limits, BytesThatWaitForAllClients) {
  RunningServer running(large_answer, with([](Limits& limits) { limits.all_buffered_bytes = 20 << 20; }));
  Client first(running.port(), "127.0.0.1", 4096), second(running.port(), "127.0.0.1", 4096);
  first.send(get("/15000000"));
  first.receive_until("aaa");
  second.send(get("/15000000"));
  EXPECT_EQ(status_of(second.receive_answer()), 503);
  Client small(running.port());
  small.send(get("/1000"));
  EXPECT_EQ(status_of(small.receive_answer()), 200);
  EXPECT_EQ(body_of(first.receive_answer()).size(), 15000000);
  Client again(running.port());
  again.send(get("/15000000"));
  EXPECT_EQ(body_of(again.receive_answer()).size(), 15000000);
}

// Behind so much its end could not be seen, and the answer would be made for nobody.
TEST(Limits, BytesBehindARequestThatIsAnswered) {
  std::mutex mutex;
  std::shared_ptr<Exchange> kept;
  RunningServer running([&](const Request&, const std::shared_ptr<Exchange>& exchange) {
    const std::lock_guard lock(mutex);
    kept = exchange;
  });
  Client client(running.port());
  client.send(get("/"));
  client.send_some(std::string(2'000'000, 'x'));
  EXPECT_TRUE(eventually([&] {
    const std::lock_guard lock(mutex);
    return kept && kept->gone();
  }));
}

TEST(Limits, HeaderTimeCutsWhoSendsSlowly) {
  RunningServer running(answer_size, with([](Limits& limits) { limits.header_time = milliseconds(300); }));
  Client silent(running.port());
  silent.send("GET / HT");
  expect_refused(silent, 408);
  // A byte now and then does not help, nor do empty lines.
  for (const std::string_view drop : {"X", "\r\n"}) {
    Client client(running.port());
    std::atomic<bool> over = false;
    std::thread dropping([&] {
      while (!over) {
        client.send(drop);
        std::this_thread::sleep_for(milliseconds(20));
      }
    });
    const std::string answer = client.receive_until("\r\n\r\n");
    over = true;
    dropping.join();
    EXPECT_EQ(status_of(answer), 408) << answer;
  }
}

TEST(Limits, BodyTime) {
  RunningServer running(answer_size, with([](Limits& limits) { limits.body_time = milliseconds(300); }));
  Client client(running.port());
  client.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf");
  expect_refused(client, 408);
}

TEST(Limits, ABodyThatIsNotTakenIsNotAwaited) {
  ServerOptions options = RunningServer::any_port();
  options.takes_body = [](const Request& request) { return request.header("x-key") == "right"; };
  RunningServer running(answer_size, options);
  for (const std::string_view body : {"Content-Length: 50000000\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n",
                                      "Content-Length: 10\r\n\r\n0123456789GET / HTTP/1.1\r\nHost: t\r\n\r\n"}) {
    Client client(running.port());
    client.send(fmt::format("POST / HTTP/1.1\r\nHost: t\r\nX-Key: wrong\r\n{}", body));
    const std::string answer = client.receive_answer();
    EXPECT_EQ(status_of(answer), 200) << "the handler answers";
    EXPECT_EQ(body_of(answer), "0");
    EXPECT_NE(answer.find("\r\nConnection: close\r\n"), std::string::npos) << answer;
    EXPECT_TRUE(client.receive_all().empty()) << "what follows is no request";
  }
  Client client(running.port());
  client.send(post("/", "body", "X-Key: right\r\n") + get("/"));
  EXPECT_EQ(body_of(client.receive_answer()), "4");
  EXPECT_EQ(body_of(client.receive_answer()), "0");
}

TEST(Limits, IdleTimeClosesWithoutAWord) {
  RunningServer running(answer_size, with([](Limits& limits) { limits.idle_time = milliseconds(200); }));
  Client never(running.port());
  EXPECT_EQ(never.receive_all(), "");
  Client once(running.port());
  once.send(get("/"));
  EXPECT_EQ(status_of(once.receive_answer()), 200);
  EXPECT_EQ(once.receive_all(), "");
}

TEST(Limits, WriteTime) {
  std::atomic<int> left = 0;
  std::shared_ptr<Exchange> held;
  RunningServer running(
      [&](const Request&, const std::shared_ptr<Exchange>& exchange) {
        held = exchange;
        exchange->on_gone([&left] { ++left; });
        exchange->begin({});
        exchange->write(std::string(20'000'000, 'x'));
      },
      with([](Limits& limits) { limits.write_time = milliseconds(500); }));
  Client client(running.port(), "127.0.0.1", 4096);
  client.send(get("/"));
  EXPECT_TRUE(eventually([&] { return left == 1 && running.server().stats().open_connections == 0; }));
}

TEST(Limits, Connections) {
  RunningServer running(answer_size, with([](Limits& limits) { limits.connections = 2; }));
  {
    Client first(running.port()), second(running.port());
    ASSERT_TRUE(eventually([&] { return running.server().stats().open_connections == 2; }));
    Client third(running.port());
    EXPECT_TRUE(third.ends());
    first.send(get("/"));
    EXPECT_EQ(status_of(first.receive_answer()), 200);
    EXPECT_EQ(running.server().stats().refused, 1);
  }
  ASSERT_TRUE(eventually([&] { return running.server().stats().open_connections == 0; }));
  Client again(running.port());
  again.send(get("/"));
  EXPECT_EQ(status_of(again.receive_answer()), 200);
  EXPECT_EQ(running.server().stats().accepted, 3);
}

}  // namespace
}  // namespace puna::http
