// What all requests share: the model with its engine and thread, workers that prepare requests, compiled grammars,
// limits of what runs at once, and what is counted.
#pragma once

#include <array>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "server/adapters.h"
#include "server/images.h"
#include "server/metrics.h"
#include "server/request_log.h"
#include "server/requests.h"

namespace puna::server {

struct ServiceOptions {
  engine::EngineOptions engine;
  std::string model_id;           // as requests name it
  int64_t max_requests = 1024;    // being prepared, waiting or running; more are told to come back (429)
  int64_t default_tokens = 4096;  // to generate where the request does not say
  int workers = 2;                // threads that read requests and encode images, of which one is kept for small ones
  double request_seconds = 3600;  // from a request's arrival; what there is by then is the answer
  ImageSources images;
  std::filesystem::path adapter_directory;  // of adapters that requests may load; empty: none
};

class Service {
 public:
  /// `loaded` must outlive the service. As Engine's constructor throws.
  Service(const engine::LoadedModel& loaded, ServiceOptions options);
  ~Service() { stop(); }

  /// Ends the threads: what waits is dropped, what runs is cancelled. What handlers refer to must live until then.
  void stop();

  /// One request on its way; it holds one of max_requests while it lives.
  class Place {
   public:
    explicit Place(Service& service) : service_(service) { ++service_.num_alive_; }
    ~Place();
    Place(const Place&) = delete;
    Place& operator=(const Place&) = delete;
    Service& service() const { return service_; }
    /// A request of several answers holds as many places. Throws ApiError 429 when there are not so many, unless it is
    /// alone.
    void count_answers(int64_t answers);
    /// Counts the vectors of pictures that wait for their answer. Throws ApiError 503 when those of others leave no
    /// memory for them.
    void count_pictures(int64_t bytes);
    /// When its time ends: the request's own, at most ServiceOptions::request_seconds.
    engine::Clock::time_point deadline() const;
    /// Gives back what counts against limits, before the client learns that its answer is there.
    void release();

    engine::Clock::time_point arrival = engine::Clock::now();
    double seconds = 1e9;                   // that the request gives itself
    Uploads uploads;                        // pictures that came beside the JSON
    std::function<bool()> gone;             // whether nobody waits any more; may be empty
    bool in_large_lane = false;             // pictures and grammars are allowed to take their time
    int owner = -1;                         // whose key asks; -1: no keys are in force
    std::shared_ptr<void> key_use;          // of the limits of the key that asks
    std::shared_ptr<RequestRecord> record;  // for the log of requests; null: none is kept

   private:
    Service& service_;
    int64_t held_ = 1, picture_bytes_ = 0;
  };
  /// Thrown by work that would hold up small requests, as reading pictures or compiling a grammar: it belongs to
  /// Lane::kLarge.
  struct LargeWork {};
  /// Throws ApiError 429 when there is none, 503 once stopping.
  std::shared_ptr<Place> take_place();

  /// What a worker takes first: answers that are ready, then small requests. One worker takes no large ones.
  enum class Lane { kReply, kSmall, kLarge };
  /// Runs `work`, which must not throw, on a worker.
  void prepare(std::function<void()> work, Lane lane = Lane::kSmall);

  /// The conversation's prompt, with its images decoded and encoded. What is too long for the model's context is
  /// refused before that. Throws ApiError; `field` is what the prompt came from.
  struct ChatPrompt {
    engine::Prompt prompt;
    std::vector<text::ImageTiles> images;
  };
  ChatPrompt prompt_of(Conversation conversation, text::ChatOptions options, Place& place, const char* field) const;

  enum class GrammarKind { kGbnf, kJsonSchema, kAnyJsonObject };
  /// Compiled, or from an earlier request. Throws Error for one that is wrong, LargeWork where compiling it would hold
  /// up small requests, ApiError 503 while those in use leave no memory for it.
  std::shared_ptr<const grammar::CompiledGrammar> grammar(GrammarKind kind, const std::string& text,
                                                          const Place& place);

  /// Whether no Place lives: nothing of it is in use.
  bool idle() const { return num_alive_ == 0; }
  /// Whether stop() was called: long work looks at it.
  bool stopping() const { return draining_; }

  /// Answers that are being prepared, wait or run: of ServiceOptions::max_requests.
  int64_t num_taken() const { return num_places_; }

  engine::Engine& engine() { return engine_; }
  const engine::Engine& engine() const { return engine_; }
  const engine::LoadedModel& loaded() const { return loaded_; }
  const ServiceOptions& options() const { return options_; }
  const std::shared_ptr<Metrics>& metrics() { return metrics_; }
  Requests& requests() { return requests_; }
  Adapters& adapters() { return adapters_; }
  const Adapters& adapters() const { return adapters_; }
  int64_t created() const { return created_; }  // unix_time()

 private:
  ChatPrompt read_prompt(Conversation conversation, text::ChatOptions options, Place& place, const char* field) const;
  void work(const std::stop_token& stop, bool large_too);
  std::function<void()> take_work(bool large_too);
  bool has_work(bool large_too) const;

  const engine::LoadedModel& loaded_;
  const ServiceOptions options_;
  const int64_t created_;
  const std::shared_ptr<Metrics> metrics_ = std::make_shared<Metrics>();
  Requests requests_;
  std::atomic<int64_t> num_places_ = 0;  // of max_requests
  std::atomic<int64_t> num_alive_ = 0;   // Place objects
  std::atomic<int64_t> picture_bytes_ = 0;
  std::atomic<bool> draining_ = false;
  engine::Engine engine_;
  Adapters adapters_{engine_};

  std::mutex grammar_mutex_;
  std::list<std::pair<std::string, std::shared_ptr<const grammar::CompiledGrammar>>> grammars_;  // last used first
  std::vector<std::weak_ptr<const grammar::CompiledGrammar>> live_grammars_;  // of requests, in grammars_ or not

  std::mutex work_mutex_;
  std::condition_variable_any work_arrived_;
  std::array<std::deque<std::function<void()>>, 3> work_;  // by lane
  std::vector<std::jthread> threads_;                      // last: they end before what they use
};

}  // namespace puna::server
