#include "server/service.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/log.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "media/image_processor.h"
#include "server/api_error.h"
#include "server/completion.h"
#include "server/result_json.h"

namespace puna::server {
namespace {

constexpr size_t kKeptGrammars = 64, kKeptGrammarBytes = size_t{256} << 20;
constexpr int64_t kMostPictureBytes = int64_t{2} << 30;  // as vectors
constexpr size_t kMostGrammarBytes = size_t{1} << 30;    // with those that requests under way still use

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
  for (int i = 0; i < options_.workers; ++i)
    threads_.emplace_back([this, i](const std::stop_token& stop) { work(stop, i > 0 || options_.workers == 1); });
}

void Service::stop() {
  draining_ = true;
  for (std::jthread& thread : threads_) thread.request_stop();
  threads_.clear();  // waits for them
  for (auto& lane : work_) lane.clear();
}

Service::Place::~Place() {
  release();
  --service_.num_alive_;
}

engine::Clock::time_point Service::Place::deadline() const {
  const double time = std::min(seconds, service_.options_.request_seconds);
  return arrival + std::chrono::milliseconds(static_cast<int64_t>(time * 1000));
}

void Service::Place::release() {
  service_.num_places_ -= std::exchange(held_, 0);
  service_.picture_bytes_ -= std::exchange(picture_bytes_, 0);
  key_use.reset();
}

void Service::Place::count_pictures(int64_t bytes) {
  picture_bytes_ += bytes;
  if ((service_.picture_bytes_ += bytes) > kMostPictureBytes && service_.picture_bytes_ > picture_bytes_)
    throw ApiError(503, "The pictures of the requests under way leave no memory for these; try again.", {},
                   "too_many_pictures");
}

void Service::Place::count_answers(int64_t answers) {
  const int64_t more = answers - held_;
  if (more <= 0) return;
  int64_t now = service_.num_places_;
  do {
    if (now > held_ && now + more > service_.options_.max_requests)
      throw ApiError(429, fmt::format("{} answers are waiting or running already; try again soon.", now - held_), {},
                     "too_many_requests");
  } while (!service_.num_places_.compare_exchange_weak(now, now + more));
  held_ = answers;
}

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

void Service::prepare(std::function<void()> work, Lane lane) {
  {
    const std::lock_guard lock(work_mutex_);
    work_[static_cast<size_t>(lane)].push_back(std::move(work));
  }
  work_arrived_.notify_all();
}

bool Service::has_work(bool large_too) const {
  const size_t lanes = large_too ? 3 : 2;
  return std::any_of(work_.begin(), work_.begin() + static_cast<int>(lanes),
                     [](const auto& lane) { return !lane.empty(); });
}

std::function<void()> Service::take_work(bool large_too) {
  for (auto& lane : work_) {
    if (lane.empty() || (&lane == &work_.back() && !large_too)) continue;
    std::function<void()> next = std::move(lane.front());
    lane.pop_front();
    return next;
  }
  return {};
}

void Service::work(const std::stop_token& stop, bool large_too) {
  for (;;) {
    std::function<void()> next;
    {
      std::unique_lock lock(work_mutex_);
      if (!work_arrived_.wait(lock, stop, [&] { return has_work(large_too); }) || stop.stop_requested()) return;
      next = take_work(large_too);
    }
    next();
  }
}

Service::ChatPrompt Service::prompt_of(Conversation conversation, text::ChatOptions options, Place& place,
                                       const char* field) const {
  try {
    return read_prompt(std::move(conversation), std::move(options), place, field);
  } catch (const Error& error) {
    throw ApiError(400, error.what(), field);
  }
}

Service::ChatPrompt Service::read_prompt(Conversation conversation, text::ChatOptions options, Place& place,
                                         const char* field) const {
  std::vector<std::string> uploads;
  for (const auto& [name, bytes] : place.uploads) uploads.push_back(name);
  add_uploads(conversation, uploads);
  engine::check_images(loaded_, conversation.images.size());
  const int64_t context = loaded_.config().text.max_position_embeddings;
  const auto check = [&](int64_t tokens) {
    if (context > 0 && tokens >= context) throw too_long(tokens, context, field);
  };
  // The template has tools in the first user message.
  const auto& messages = conversation.messages;
  const size_t first = !messages.empty() && messages[0].role == text::Role::kSystem ? 1 : 0;
  if (!options.tools.is_null() && (first >= messages.size() || messages[first].role != text::Role::kUser)) {
    options.tools_in_user_message = false;
    if (first == 0)
      conversation.messages.insert(conversation.messages.begin(), text::Message{text::Role::kSystem, {}, {}, false});
  }
  if (conversation.images.empty()) return {engine::chat_prompt(loaded_, messages, {}, options), {}};
  if (!place.in_large_lane) throw LargeWork();

  // The least that it can be, with one tile for each picture; then each picture as its size says, before it is encoded.
  const int tile_tokens = static_cast<int>(loaded_.config().vision->tokens_per_tile());
  const std::vector<text::ImageTiles> least(conversation.images.size(), {1, 1, tile_tokens});
  auto tokens = std::ssize(text::encode_chat(*loaded_.tokenizer, messages, least, options));
  check(tokens);
  std::vector<engine::EncodedImage> images;
  std::vector<text::ImageTiles> all_tiles;
  for (ImageSource& source : conversation.images) {
    if (stopping()) throw ApiError(503, "The server is shutting down.", {}, "shutting_down");
    if (place.gone && place.gone()) throw ApiError(503, "The client has left.", {}, "cancelled");
    if (engine::Clock::now() > place.deadline()) throw out_of_time("its pictures were read");
    const io::Image image = decode_source(source, options_.images, place.uploads, draining_, place.deadline());
    const auto geometry = media::tile_geometry(image.height, image.width, loaded_.image_processor);
    const text::ImageTiles tiles{geometry.rows, geometry.columns, tile_tokens};
    tokens += int64_t{tiles.num_tiles() - 1} * tile_tokens;
    check(tokens);
    place.count_pictures(tiles.num_tiles() * tile_tokens * loaded_.config().text.hidden_size *
                         static_cast<int64_t>(c10::elementSize(loaded_.dtype)));
    all_tiles.push_back(tiles);
    try {
      images.push_back(engine::encode_image(loaded_, image));
    } catch (const Error& error) {
      throw ApiError(422, error.what(), source.field, "invalid_image");
    }
  }
  return {engine::chat_prompt(loaded_, messages, images, options), std::move(all_tiles)};
}

std::shared_ptr<const grammar::CompiledGrammar> Service::grammar(GrammarKind kind, const std::string& text,
                                                                 const Place& place) {
  const std::string key = fmt::format("{} {}", static_cast<int>(kind), text);
  {
    const std::lock_guard lock(grammar_mutex_);
    for (auto at = grammars_.begin(); at != grammars_.end(); ++at) {
      if (at->first != key) continue;
      grammars_.splice(grammars_.begin(), grammars_, at);
      return at->second;
    }
    if (!place.in_large_lane) throw LargeWork();
    std::erase_if(live_grammars_, [](const auto& weak) { return weak.expired(); });
    size_t bytes = 0;
    for (const auto& weak : live_grammars_)
      if (const auto live = weak.lock()) bytes += live->bytes();
    if (bytes > kMostGrammarBytes)
      throw ApiError(503, "The grammars of the requests under way leave no memory for another; try again.", {},
                     "too_many_grammars");
  }
  const auto source = [&] {
    if (kind == GrammarKind::kGbnf) return grammar::read_gbnf(text, "grammar");
    if (kind == GrammarKind::kAnyJsonObject) return grammar::any_json(true);
    return grammar::read_json_schema(parse_ordered_json(text, "schema"), "schema");
  };
  auto compiled = grammar::CompiledGrammar::compile(source(), engine::grammar_vocabulary(loaded_));
  const std::lock_guard lock(grammar_mutex_);
  live_grammars_.push_back(compiled);
  grammars_.emplace_front(key, compiled);
  // They grow while they are used, and are counted anew: the least lately used go first.
  size_t bytes = 0, kept = 0;
  auto at = grammars_.begin();
  for (; at != grammars_.end() && kept < kKeptGrammars; ++at, ++kept) {
    bytes += at->first.size() + at->second->bytes();
    if (bytes > kKeptGrammarBytes) break;
  }
  grammars_.erase(at, grammars_.end());
  return compiled;
}

}  // namespace puna::server
