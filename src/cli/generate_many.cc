#include "cli/generate_many.h"

#include <algorithm>
#include <deque>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "base/suggest.h"
#include "cli/generation_json.h"
#include "cli/terminal.h"
#include "io/file.h"
#include "io/text.h"

namespace puna::cli {
namespace {

constexpr int64_t kMaxFileBytes = int64_t{1} << 32;
const std::vector<std::string> kKeys = {"prompt", "system", "images", "max_tokens", "seed", "temperature", "stop", "n"};

template <typename T>
T number(const Json& json, const std::string& key, T least, T most, const std::string& where) {
  const bool right = std::is_integral_v<T> ? json.is_number_integer() : json.is_number();
  const double value = right ? json.get<double>() : 0;
  if (!right || value < static_cast<double>(least) || value > static_cast<double>(most))
    fail(where, "'{}' is {}; expected a number from {} to {}", key, json.dump(), least, most);
  return json.get<T>();
}

std::string string(const Json& json, const std::string& key, const std::string& where) {
  if (!json.is_string()) fail(where, "'{}' is {}; expected a string", key, json.type_name());
  return json.get<std::string>();
}

std::vector<std::string> strings(const Json& json, const std::string& key, const std::string& where) {
  std::vector<std::string> values;
  if (json.is_string()) return {json.get<std::string>()};
  if (!json.is_array()) fail(where, "'{}' is {}; expected a string or a list of them", key, json.type_name());
  for (const Json& value : json) values.push_back(string(value, key, where));
  return values;
}

PromptLine read_line(std::string_view text, const std::string& where, const std::filesystem::path& beside) {
  const Json json = parse_json(text, where);
  if (!json.is_object()) fail(where, "holds {}; expected an object with 'prompt'", json.type_name());
  PromptLine line;
  line.where = where;
  for (const auto& [key, value] : json.items()) {
    if (key == "prompt") {
      line.prompt = string(value, key, where);
    } else if (key == "system") {
      line.system = string(value, key, where);
    } else if (key == "images") {
      for (const std::string& image : strings(value, key, where)) line.images.push_back((beside / image).string());
    } else if (key == "stop") {
      line.stop = strings(value, key, where);
    } else if (key == "max_tokens") {
      line.max_tokens = number<int64_t>(value, key, 1, int64_t{1} << 40, where);
    } else if (key == "temperature") {
      line.temperature = number<double>(value, key, 0, 100, where);
    } else if (key == "seed") {
      line.seed = number<uint64_t>(value, key, 0, UINT64_MAX, where);
    } else if (key == "n") {
      line.completions = number<int>(value, key, 1, 256, where);
    } else {
      const std::string nearest = nearest_name(key, kKeys);
      fail(where, "unknown key '{}'{}", io::printable(key),
           nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
    }
  }
  if (!json.contains("prompt")) fail(where, "has no 'prompt'");
  return line;
}

engine::Request request_of(const engine::LoadedModel& loaded, const PromptLine& line, size_t index,
                           const engine::Request& defaults, bool raw) {
  engine::Request request = defaults;
  request.sampling.seed = line.seed.value_or(defaults.sampling.seed + index);
  request.sampling.temperature = line.temperature.value_or(defaults.sampling.temperature);
  request.max_tokens = line.max_tokens.value_or(defaults.max_tokens);
  request.completions = line.completions.value_or(defaults.completions);
  request.stop_strings.insert(request.stop_strings.end(), line.stop.begin(), line.stop.end());
  if (raw) {
    if (!line.images.empty() || !line.system.empty()) fail(line.where, "--raw takes prompts alone");
    request.prompt = engine::raw_prompt(loaded, line.prompt);
    return request;
  }
  std::vector<text::Message> messages;
  if (!line.system.empty()) messages.push_back({text::Role::kSystem, {text::TextPart{line.system}}, {}, false});
  text::Message user{text::Role::kUser, {}, {}, false};
  std::vector<engine::EncodedImage> images;
  engine::check_images(loaded, line.images.size());
  for (const std::string& file : line.images) {
    user.parts.push_back(text::ImagePart{images.size()});
    images.push_back(engine::encode_image_file(loaded, file));
  }
  user.parts.push_back(text::TextPart{line.prompt});
  messages.push_back(std::move(user));
  request.prompt = engine::chat_prompt(loaded, messages, images);
  return request;
}

// A line on its way: the ticket, or why there is none.
struct Pending {
  std::shared_ptr<engine::Ticket> ticket;
  std::string error;
  bool done() const { return !ticket || ticket->done(); }
};

std::string message_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& known) {
    return known.what();
  }
}

Json line_json(const engine::LoadedModel& loaded, const Pending& pending, size_t index) {
  Json json = {{"index", index}};
  std::string error = pending.error;
  if (error.empty() && pending.ticket->response().error) error = message_of(pending.ticket->response().error);
  if (!error.empty()) {
    json["error"] = error;
    return json;
  }
  const auto& completions = pending.ticket->response().completions;
  json.update(generation_json(loaded, completions.front()));
  json["usage"] = usage_json(completions);
  if (completions.size() > 1) {
    json["completions"] = Json::array();
    for (const engine::Generation& one : completions) json["completions"].push_back(generation_json(loaded, one));
  }
  return json;
}

}  // namespace

std::vector<PromptLine> read_prompts(const std::filesystem::path& file) {
  const std::string text = io::read_file(file, kMaxFileBytes);
  std::vector<PromptLine> lines;
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const std::string_view line(text.data() + begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    lines.push_back(read_line(line, fmt::format("{}:{}", file.string(), number), file.parent_path()));
  }
  if (lines.empty()) fail(file.string(), "holds no prompt; expected one JSON object a line");
  return lines;
}

void run_prompts(const engine::LoadedModel& loaded, engine::EngineOptions options, const std::vector<PromptLine>& lines,
                 const engine::Request& defaults, bool raw, int64_t max_concurrent) {
  options.max_sequences = std::max(options.max_sequences, max_concurrent);
  engine::Engine engine(loaded, options);
  std::deque<Pending> pending;  // from line `printed` on
  size_t started = 0, printed = 0;
  const auto start = engine::Clock::now();
  Progress progress("prompts", std::ssize(lines));
  const auto interrupted = [&] { return defaults.cancel && *defaults.cancel; };
  while (printed < lines.size() && !interrupted()) {
    const auto open = std::count_if(pending.begin(), pending.end(), [](const Pending& p) { return !p.done(); });
    for (int64_t room = max_concurrent - open; room > 0 && started < lines.size(); --room, ++started) {
      Pending next;
      try {
        next.ticket = engine.submit(request_of(loaded, lines[started], started, defaults, raw));
      } catch (const Error& error) {
        next.error = error.what();
      }
      pending.push_back(std::move(next));
    }
    engine.step();
    for (; !pending.empty() && pending.front().done(); ++printed) {
      const Json json = line_json(loaded, pending.front(), printed);
      print_now(json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
      pending.pop_front();
      progress.set(static_cast<int64_t>(printed) + 1);
    }
  }
  const double seconds = std::chrono::duration<double>(engine::Clock::now() - start).count();
  const engine::EngineStats stats = engine.stats();
  say_aside(fmt::format("{} prompts, {} tokens read ({} from the cache), {} generated, {:.1f} generated a second",
                        printed, stats.prompt_tokens, stats.reused_tokens, stats.generated_tokens,
                        static_cast<double>(stats.generated_tokens) / std::max(seconds, 1e-9)));
  if (stats.drafted_tokens > 0)
    say_aside(fmt::format("{} guesses, {} of them right", stats.drafted_tokens, stats.accepted_tokens));
}

}  // namespace puna::cli
