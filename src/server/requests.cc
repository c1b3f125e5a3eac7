#include "server/requests.h"

#include <fmt/format.h>

#include "server/api_error.h"

namespace puna::server {
namespace {

int64_t microseconds_since(engine::Clock::time_point then) {
  return std::chrono::duration_cast<std::chrono::microseconds>(engine::Clock::now() - then).count();
}

}  // namespace

void RunningRequest::count_token() {
  if (generated++ == 0) first_token_us = microseconds_since(arrival);
}

OrderedJson RunningRequest::json() const {
  const int64_t tokens = generated, first = first_token_us, now = microseconds_since(arrival);
  const char* state = first >= 0 ? "answering" : prompt_done > 0 ? "reading" : "waiting";
  OrderedJson json = {{"state", state},
                      {"created", created},
                      {"seconds", static_cast<double>(now) / 1e6},
                      {"prompt_tokens", prompt_tokens},
                      {"prompt_tokens_done", first >= 0 ? prompt_tokens : prompt_done.load()},
                      {"completion_tokens", tokens},
                      {"tokens_per_second", nullptr}};
  if (first >= 0 && tokens > 1 && now > first)
    json["tokens_per_second"] = static_cast<double>(tokens - 1) * 1e6 / static_cast<double>(now - first);
  if (owner >= 0) json["id"] = id;  // without keys all ask as one, and an id is what tells of an answer's words
  return json;
}

std::shared_ptr<RunningRequest> Requests::begin(std::string id, int owner, int64_t created, int64_t prompt_tokens) {
  auto request = std::make_shared<RunningRequest>();
  request->id = std::move(id);
  request->owner = owner;
  request->created = created;
  request->prompt_tokens = prompt_tokens;
  const std::lock_guard lock(mutex_);
  running_.remove_if([](const auto& one) { return one.expired(); });
  running_.push_back(request);
  return request;
}

OrderedJson Requests::running(int owner) {
  OrderedJson list = OrderedJson::array();
  const std::lock_guard lock(mutex_);
  for (const auto& one : running_) {
    const auto request = one.lock();
    if (request && request->owner == owner) list.push_back(request->json());
  }
  return list;
}

std::shared_ptr<Requests::Share> Requests::reserve(int64_t bytes) {
  const std::lock_guard lock(mutex_);
  int64_t running = held_bytes_;
  for (const auto& [kept, share] : kept_) running -= share->bytes();
  if (running + bytes > most_bytes_)
    throw ApiError(429, "Too many requests with 'return_routing' are running; try again soon, or leave it out",
                   "return_routing", "too_many_requests");
  while (!kept_.empty() && held_bytes_ + bytes > most_bytes_) kept_.pop_back();
  held_bytes_ += bytes;
  return std::make_shared<Share>(*this, bytes);
}

void Requests::keep(KeptRouting routing, std::shared_ptr<Share> share) {
  auto kept = std::make_shared<const KeptRouting>(std::move(routing));
  const std::lock_guard lock(mutex_);
  kept_.emplace_front(std::move(kept), std::move(share));
  if (kept_.size() > kMostKept) kept_.pop_back();
}

std::shared_ptr<const KeptRouting> Requests::find(const std::string& id, int owner) {
  const std::lock_guard lock(mutex_);
  for (const auto& [kept, share] : kept_) {
    if (kept->id == id && kept->owner == owner) return kept;
  }
  for (const auto& one : running_) {
    const auto request = one.lock();
    if (request && request->id == id && request->owner == owner)
      throw ApiError(409, fmt::format("The request '{}' is still running", id), "id", "not_finished");
  }
  throw ApiError(404,
                 fmt::format("There is no routing of a request '{}': it asked for none with 'return_routing', is not "
                             "known here, or was given up for later ones",
                             id.substr(0, 100)),
                 "id", "request_not_found");
}

}  // namespace puna::server
