#include "server/request_log.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/json.h"

namespace puna::server {

RequestLog::RequestLog(const std::string& file, bool with_texts) : with_texts_(with_texts) {
  if (file.empty()) return;
  fd_ = file == "-" ? dup(STDERR_FILENO) : open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
  if (fd_ < 0) fail(file, "cannot be written: {}", std::strerror(errno));
}

RequestLog::~RequestLog() {
  if (fd_ >= 0) close(fd_);
}

std::shared_ptr<RequestRecord> RequestLog::begin(std::string method, std::string path, std::string peer) {
  if (fd_ < 0) return nullptr;
  auto record = std::make_shared<RequestRecord>(*this);
  record->method = std::move(method);
  record->path = std::move(path);
  record->peer = std::move(peer);
  return record;
}

void RequestLog::write(const RequestRecord& record) {
  using std::chrono::milliseconds;
  const auto now = std::chrono::time_point_cast<milliseconds>(std::chrono::system_clock::now());
  const auto ms = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - record.begin).count();
  OrderedJson json = {{"time", fmt::format("{:%FT%T}.{:03}Z", fmt::gmtime(std::chrono::system_clock::to_time_t(now)),
                                           now.time_since_epoch().count() % 1000)},
                      {"id", record.id},
                      {"answer", record.answer},
                      {"peer", record.peer},
                      {"key", record.key},
                      {"method", record.method},
                      {"path", record.path},
                      {"status", record.status},
                      {"ms", ms},
                      {"prompt_tokens", record.prompt_tokens},
                      {"generated_tokens", record.generated_tokens}};
  if (with_texts_) {
    json["asked"] = record.asked;
    json["answered"] = record.answered;
  }
  const std::string line = json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n";
  const std::lock_guard lock(mutex_);
  [[maybe_unused]] const ssize_t written = ::write(fd_, line.data(), line.size());
}

}  // namespace puna::server
