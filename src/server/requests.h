// The requests of now, for /requests, and where the tokens of finished ones went, for /v1/requests/ID/routing.
#pragma once

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/request.h"
#include "engine/routing_record.h"

namespace puna::server {

/// One on its way; what is atomic is written while it runs.
struct RunningRequest {
  std::string id;
  int owner = -1;  // whose key asked; -1: no keys are in force
  int64_t created = 0;
  int64_t prompt_tokens = 0;
  engine::Clock::time_point arrival = engine::Clock::now();
  std::atomic<int64_t> prompt_done = 0, generated = 0;
  std::atomic<int64_t> first_token_us = -1;  // after arrival

  void count_token();
  OrderedJson json() const;
};

/// Of a finished request.
struct KeptRouting {
  std::string id;
  int owner = -1;
  int64_t created = 0;
  engine::Prompt prompt;  // without features
  std::vector<engine::TokenId> generated;
  int64_t reused_tokens = 0;
  std::shared_ptr<const engine::RoutingRecord> record;
  bool truncated = false;  // the record ends before the tokens do
};

class Requests {
 public:
  static constexpr int64_t kMostBytes = int64_t{64} << 20;  // of what is kept and what running requests record
  static constexpr int64_t kMostBytesOfOne = int64_t{4} << 20;
  static constexpr size_t kMostKept = 256;

  explicit Requests(int64_t most_bytes = kMostBytes) : most_bytes_(most_bytes) {}

  /// Listed for as long as the result lives.
  std::shared_ptr<RunningRequest> begin(std::string id, int owner, int64_t created, int64_t prompt_tokens);
  /// Those of `owner`, the oldest first.
  OrderedJson running(int owner);

  /// Bytes of a record, held while this lives.
  class Share {
   public:
    Share(Requests& requests, int64_t bytes) : requests_(requests), bytes_(bytes) {}
    ~Share() { requests_.give_back(bytes_); }
    Share(const Share&) = delete;
    Share& operator=(const Share&) = delete;
    int64_t bytes() const { return bytes_; }

   private:
    Requests& requests_;
    const int64_t bytes_;
  };
  /// Gives up the oldest that are kept; throws ApiError 429 when running requests have all.
  std::shared_ptr<Share> reserve(int64_t bytes);
  void keep(KeptRouting routing, std::shared_ptr<Share> share);
  /// Throws ApiError: 404 when it is not known, or another's; 409 while it runs.
  std::shared_ptr<const KeptRouting> find(const std::string& id, int owner);

 private:
  void give_back(int64_t bytes) { held_bytes_ -= bytes; }

  const int64_t most_bytes_;
  std::atomic<int64_t> held_bytes_ = 0;
  std::mutex mutex_;
  std::list<std::weak_ptr<const RunningRequest>> running_;
  std::list<std::pair<std::shared_ptr<const KeptRouting>, std::shared_ptr<Share>>> kept_;  // the latest first
};

}  // namespace puna::server
