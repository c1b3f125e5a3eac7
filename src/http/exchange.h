// One HTTP request and its answer, without any of the library behind it.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace puna::http {

struct Request {
  std::string method;                          // "GET", "POST", ...
  std::string path;                            // percent-decoded, without the query
  std::map<std::string, std::string> query;    // percent-decoded; the last of equal names
  std::map<std::string, std::string> headers;  // names in small letters; equal names joined by ", "
  std::string body;                            // whole, or empty where it was not taken
  std::string peer;                            // address of the client, without its port
  std::shared_ptr<void> held;                  // the body counts as held (Limits::all_bodies_bytes) until it is dropped

  /// "" when absent. `name` in small letters.
  std::string_view header(const std::string& name) const;
};

using Headers = std::vector<std::pair<std::string, std::string>>;

/// Content-Length, Transfer-Encoding, Connection and Date are the server's own: `headers` does not name them.
struct Reply {
  int status = 200;
  std::string body;
  std::string content_type = "application/json";
  Headers headers;
};

/// The answer to one request, given from any thread: whole by reply(), or in pieces by begin(), write() and end().
/// After the first reply() or end() nothing more is taken. Dropping it unanswered is answered with status 500; one that
/// has begun is then cut, so that the client sees that it is not whole.
class Exchange {
 public:
  /// Before the answer: headers that it gets whatever it is, and who is told its status.
  void prepare(Headers headers, std::function<void(int)> on_status);

  void reply(Reply reply);

  /// The answer's head; its body is what write() is given, each piece sent as it comes. `reply.body` must be empty.
  /// An event stream (text/event-stream) is kept alive by comments in silence: a piece is one event or several, whole.
  void begin(Reply head);
  void write(std::string_view piece);
  void end();

  /// True once the client has left: what is written goes nowhere.
  bool gone() const;
  /// Called at most once, from the connection's thread, when the client leaves before the answer is complete; at once
  /// when it has left already. It must not hold the Exchange, which would then never be dropped.
  void on_gone(std::function<void()> callback);
  /// Bytes that were written and not yet sent.
  size_t unsent_bytes() const;

  // For the connection.

  /// What has come since the last call.
  struct Progress {
    bool begun = false;  // `head` is set; true once
    bool whole = false;  // `head.body` is the body
    Reply head;
    std::string pieces;
    bool ended = false;
    bool failed = false;  // no more will come, and what came is not whole
  };
  Progress take();
  /// `wake` is called, from any thread, when take() would give something new; not again before take() was called. After
  /// watch(nullptr) has returned it is not called any more.
  void watch(std::function<void()> wake);
  void mark_sent(size_t bytes);
  /// The client has left.
  void leave();
  /// Nobody will answer any more: a failure, unless the answer is complete.
  void fail();

 private:
  enum class State { kOpen, kBegun, kComplete, kFailed };
  void notify();
  void take_head(Reply head);

  mutable std::mutex mutex_;
  std::function<void()> wake_, gone_callback_;
  Headers headers_;
  std::function<void(int)> on_status_;
  Progress progress_;
  State state_ = State::kOpen;
  bool notified_ = false, gone_ = false;
  size_t unsent_ = 0;
};

}  // namespace puna::http
