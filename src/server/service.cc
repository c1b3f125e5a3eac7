#include "server/service.h"

#include <fmt/format.h>

#include "base/error.h"
#include "base/log.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "server/api_error.h"
#include "server/result_json.h"

namespace puna::server {
namespace {

constexpr size_t kKeptGrammars = 64;
constexpr int64_t kMostPixels = 50'000'000;  // of an image, 150 MB decoded
constexpr int64_t kMostImageBytes = int64_t{32} << 20;

}  // namespace

Service::Service(const engine::LoadedModel& loaded, ServiceOptions options)
    : loaded_(loaded), options_(std::move(options)), created_(unix_time()), engine_(loaded, options_.engine) {
  threads_.emplace_back([this](const std::stop_token& stop) {
    try {
      engine_.serve(stop);
    } catch (const std::exception& error) {
      spdlog::critical("the engine stopped: {}", error.what());
      std::terminate();
    }
  });
  for (int i = 0; i < options_.workers; ++i) threads_.emplace_back([this](const std::stop_token& stop) { work(stop); });
}

void Service::stop() {
  draining_ = true;
  for (std::jthread& thread : threads_) thread.request_stop();
  threads_.clear();  // waits for them
  work_.clear();
}

Service::Place::~Place() { --service_.num_places_; }

std::shared_ptr<Service::Place> Service::take_place() {
  if (draining_) throw ApiError(503, "The server is shutting down.", {}, "shutting_down");
  if (++num_places_ > options_.max_requests) {
    --num_places_;
    throw ApiError(429,
                   fmt::format("{} requests are waiting or running already; try again soon.", options_.max_requests),
                   {}, "too_many_requests");
  }
  return std::make_shared<Place>(*this);
}

void Service::prepare(std::function<void()> work) {
  {
    const std::lock_guard lock(work_mutex_);
    work_.push_back(std::move(work));
  }
  work_arrived_.notify_one();
}

void Service::work(const std::stop_token& stop) {
  for (;;) {
    std::function<void()> next;
    {
      std::unique_lock lock(work_mutex_);
      if (!work_arrived_.wait(lock, stop, [&] { return !work_.empty(); }) || stop.stop_requested()) return;
      next = std::move(work_.front());
      work_.pop_front();
    }
    next();
  }
}

engine::Prompt Service::prompt_of(Conversation conversation, const text::ChatOptions& options) const {
  engine::check_images(loaded_, conversation.images.size());
  std::vector<engine::EncodedImage> images;
  for (ImageSource& source : conversation.images) {
    if (stopping()) throw ApiError(503, "The server is shutting down.", {}, "shutting_down");
    const std::string bytes = image_bytes(source);
    io::ImageLimits limits;
    limits.max_bytes = kMostImageBytes;
    limits.max_pixels = kMostPixels;
    try {
      images.push_back(
          engine::encode_image(loaded_, io::decode_image(std::as_bytes(std::span(bytes)), source.field, limits)));
    } catch (const Error& error) {
      throw ApiError(400, error.what(), source.field, "invalid_image");
    }
    std::string().swap(source.url);
  }
  return engine::chat_prompt(loaded_, conversation.messages, images, options);
}

std::shared_ptr<const grammar::CompiledGrammar> Service::grammar(GrammarKind kind, const std::string& text) {
  const std::string key = fmt::format("{} {}", static_cast<int>(kind), text);
  {
    const std::lock_guard lock(grammar_mutex_);
    for (auto at = grammars_.begin(); at != grammars_.end(); ++at) {
      if (at->first != key) continue;
      grammars_.splice(grammars_.begin(), grammars_, at);
      return at->second;
    }
  }
  const auto source = [&] {
    if (kind == GrammarKind::kGbnf) return grammar::read_gbnf(text, "grammar");
    if (kind == GrammarKind::kAnyJsonObject) return grammar::any_json(true);
    return grammar::read_json_schema(parse_ordered_json(text, "schema"), "schema");
  };
  auto compiled = grammar::CompiledGrammar::compile(source(), engine::grammar_vocabulary(loaded_));
  const std::lock_guard lock(grammar_mutex_);
  grammars_.emplace_front(key, compiled);
  if (grammars_.size() > kKeptGrammars) grammars_.pop_back();
  return compiled;
}

}  // namespace puna::server
