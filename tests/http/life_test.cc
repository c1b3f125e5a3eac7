// The server's own life: addresses, draining, stopping, and many connections at a time.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <atomic>
#include <fstream>

#include "base/error.h"
#include "tests/http/support.h"

namespace puna::http {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using test::body_of;
using test::Client;
using test::eventually;
using test::get;
using test::RunningServer;
using test::status_of;
using testing::HasSubstr;
using testing::StartsWith;

void answer_path(const Request& request, const std::shared_ptr<Exchange>& exchange) {
  Reply reply;
  reply.body = request.path;
  exchange->reply(std::move(reply));
}

// Answers /hold with a stream whose exchange it keeps, everything else at once.
struct Holding {
  std::shared_ptr<Exchange> held;
  std::atomic<bool> is_held = false, gone = false;

  Handler handler() {
    return [this](const Request& request, const std::shared_ptr<Exchange>& exchange) {
      if (request.path != "/hold") return answer_path(request, exchange);
      exchange->on_gone([this] { gone = true; });
      exchange->begin({});
      exchange->write("begun");
      held = exchange;
      is_held = true;
    };
  }
};

ServerOptions at(const std::string& address, uint16_t port = 0) {
  ServerOptions options;
  options.address = address;
  options.port = port;
  return options;
}

std::string error_of(const ServerOptions& options) {
  try {
    Server server(options, answer_path);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Addresses, OfBothKinds) {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"127.0.0.1", "127.0.0.1", "http://127.0.0.1:"},
      {"localhost", "127.0.0.1", "http://127.0.0.1:"},
      {"0.0.0.0", "127.0.0.1", "http://0.0.0.0:"},
      {"::1", "::1", "http://[::1]:"},
      {"[::1]", "::1", "http://[::1]:"},
      {"::", "127.0.0.1", "http://[::]:"},
  };
  const bool has_v6 = std::ifstream("/proc/net/if_inet6").peek() != std::ifstream::traits_type::eof();
  for (const auto& [address, from, url] : cases) {
    SCOPED_TRACE(address);
    if (!has_v6 && std::string_view(address).find(':') != std::string_view::npos) continue;
    std::string peer;
    RunningServer running(
        [&](const Request& request, const std::shared_ptr<Exchange>& exchange) {
          peer = request.peer;
          answer_path(request, exchange);
        },
        at(address));
    EXPECT_NE(running.port(), 0);
    EXPECT_EQ(running.server().url(), fmt::format("{}{}", url, running.port()));
    Client client(running.port(), from);
    client.send(get("/here"));
    EXPECT_EQ(body_of(client.receive_answer()), "/here");
    EXPECT_EQ(peer, from);
  }
}

TEST(Addresses, OfThisMachineAloneHoweverSpelt) {
  for (const char* address :
       {"127.0.0.1", "127.1.2.3", "localhost", "::1", "[::1]", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"})
    EXPECT_TRUE(is_loopback(address)) << address;
  for (const char* address : {"0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1", "fe80::1"})
    EXPECT_FALSE(is_loopback(address)) << address;
  EXPECT_THROW(is_loopback("127.evil"), Error);
}

TEST(Addresses, ThatCannotBeHadAreErrors) {
  Server first(at("127.0.0.1"), answer_path);
  EXPECT_THAT(error_of(at("127.0.0.1", first.port())), HasSubstr("is in use; take another port with --port"));
  EXPECT_THAT(error_of(at("192.0.2.1")), HasSubstr("192.0.2.1 is not an address of this machine"));
  EXPECT_THAT(error_of(at("somewhere")), HasSubstr("'somewhere' is no address"));
}

TEST(Life, EndsWithoutEverRunning) { Server server(at("127.0.0.1"), answer_path); }

TEST(Life, StopBeforeRunningLetsItReturn) {
  Server server(at("127.0.0.1"), answer_path);
  server.stop();
  server.run();
}

TEST(Life, DrainLetsRunningAnswersEnd) {
  Holding holding;
  RunningServer running(holding.handler());
  Client busy(running.port()), idle(running.port()), late(running.port());
  idle.send(get("/"));
  EXPECT_EQ(status_of(idle.receive_answer()), 200);
  late.send("GET / HTTP/1.1\r\n");
  busy.send(get("/hold"));
  busy.receive_until("begun");
  ASSERT_TRUE(eventually([&] { return running.server().stats().open_connections == 3; }));
  running.server().drain(hours(1));
  EXPECT_EQ(idle.receive_all(), "");
  // A request that is not whole yet is not begun; were its bytes still unread, the connection would just end.
  EXPECT_THAT(late.receive_all(), testing::AnyOf("", StartsWith("HTTP/1.1 503 ")));
  holding.held->write(", and ended");
  holding.held->end();
  EXPECT_EQ(body_of(busy.receive_all()), "begun, and ended");
  busy.close();
  running.join();
  EXPECT_FALSE(holding.gone);
}

TEST(Life, DrainTellsClientsAndTakesNoMoreConnections) {
  std::shared_ptr<Exchange> held;
  std::atomic<bool> is_held = false;
  RunningServer running([&](const Request&, const std::shared_ptr<Exchange>& exchange) {
    held = exchange;
    is_held = true;
  });
  Client client(running.port());
  client.send(get("/"));
  ASSERT_TRUE(eventually([&] { return is_held.load(); }));
  {
    Client idle(running.port());
    running.server().drain(hours(1));
    EXPECT_TRUE(idle.ends());
  }
  held->reply({});
  EXPECT_THAT(client.receive_all(), HasSubstr("\r\nConnection: close\r\n"));
  client.close();
  running.join();
}

TEST(Life, DrainCutsWhatIsLeftAfterItsTime) {
  Holding holding;
  RunningServer running(holding.handler());
  Client busy(running.port());
  busy.send(get("/hold"));
  busy.receive_until("begun");
  running.server().drain(milliseconds(100));
  running.join();
  EXPECT_TRUE(holding.gone);
  holding.held->write("nobody is there");
  holding.held->end();
}

TEST(Life, StopAfterDrainCutsAtOnce) {
  Holding holding;
  RunningServer running(holding.handler());
  Client busy(running.port());
  busy.send(get("/hold"));
  busy.receive_until("begun");
  running.server().drain(hours(1));
  running.server().stop();
  running.server().drain(hours(1));
  running.join();
  EXPECT_TRUE(holding.gone);
}

Server* g_signalled = nullptr;

TEST(Life, DrainCanBeCalledBySignalHandlers) {
  RunningServer running(answer_path);
  g_signalled = &running.server();
  struct sigaction action {};
  struct sigaction before {};
  action.sa_handler = [](int) { g_signalled->drain(hours(1)); };
  sigaction(SIGUSR1, &action, &before);
  raise(SIGUSR1);
  running.join();
  sigaction(SIGUSR1, &before, nullptr);
}

TEST(Life, AnExchangeMayOutliveItsServer) {
  Holding holding;
  {
    RunningServer running(holding.handler());
    Client busy(running.port());
    busy.send(get("/hold"));
    busy.receive_until("begun");
  }
  EXPECT_TRUE(holding.gone);
  holding.held->write("late");
  holding.held.reset();
}

TEST(Life, ManyConnectionsAtATime) {
  // Both ends are in this process.
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const size_t num_clients = std::min<size_t>(2000, (limit.rlim_max - 100) / 2);
  std::mutex mutex;
  std::vector<std::shared_ptr<Exchange>> exchanges;
  RunningServer running([&](const Request& request, const std::shared_ptr<Exchange>& exchange) {
    if (request.path == "/quick") return answer_path(request, exchange);
    exchange->begin({});
    const std::lock_guard lock(mutex);
    exchanges.push_back(exchange);
  });
  std::vector<std::unique_ptr<Client>> clients;
  for (size_t i = 0; i < num_clients; ++i) clients.push_back(std::make_unique<Client>(running.port()));
  for (const auto& client : clients) client->send(get("/quick"));
  for (const auto& client : clients) ASSERT_EQ(body_of(client->receive_answer()), "/quick");
  for (const auto& client : clients) client->send(get("/stream"));
  ASSERT_TRUE(eventually([&] {
    const std::lock_guard lock(mutex);
    return exchanges.size() == num_clients;
  }));
  EXPECT_EQ(running.server().stats().open_requests, static_cast<int64_t>(num_clients));
  for (int round = 0; round < 3; ++round)
    for (const auto& exchange : exchanges) exchange->write("x");
  for (const auto& exchange : exchanges) exchange->end();
  for (const auto& client : clients) ASSERT_EQ(body_of(client->receive_answer()), "xxx");
  clients.clear();
  EXPECT_TRUE(eventually([&] { return running.server().stats().open_connections == 0; }));
}

}  // namespace
}  // namespace puna::http
