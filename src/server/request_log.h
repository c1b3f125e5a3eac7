// A line of JSON for each request that was answered; what was asked and answered only if whoever runs the server says
// so.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

namespace puna::server {

/// Written when the last who holds it lets go: when all of the answer is sent or given up.
struct RequestRecord;

class RequestLog {
 public:
  /// "": none; "-": standard error. Throws Error when the file cannot be written. Lines are added to what is there.
  explicit RequestLog(const std::string& file, bool with_texts = false);
  ~RequestLog();
  RequestLog(const RequestLog&) = delete;
  RequestLog& operator=(const RequestLog&) = delete;

  /// null without a log. The log must outlive it.
  std::shared_ptr<RequestRecord> begin(std::string method, std::string path, std::string peer);
  void write(const RequestRecord& record);
  bool with_texts() const { return with_texts_; }

 private:
  int fd_ = -1;
  const bool with_texts_;
  std::mutex mutex_;
};

struct RequestRecord {
  static constexpr size_t kMostText = 64 << 10;  // bytes of what was asked, and of what was answered

  explicit RequestRecord(RequestLog& log) : log(log) {}
  ~RequestRecord() { log.write(*this); }
  RequestRecord(const RequestRecord&) = delete;
  RequestRecord& operator=(const RequestRecord&) = delete;

  RequestLog& log;
  std::string method, path, peer;
  std::string id, answer, key;  // of the request (X-Request-Id) and the answer; the name of the key that asked
  std::string asked, answered;  // with RequestLog::with_texts(), the beginning of each
  int status = 0;               // 0: the client left before there was one
  int64_t prompt_tokens = 0, generated_tokens = 0;
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
};

}  // namespace puna::server
