#include "eval/read_item.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/suggest.h"
#include "engine/limits.h"
#include "eval/answer.h"
#include "io/base64.h"
#include "io/file.h"
#include "io/text.h"

namespace puna::eval {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxList = 1000;
constexpr std::string_view kImagePlace = "<image>";
constexpr std::array kKinds = {Kind::kMultipleChoice, Kind::kExactMatch, Kind::kContains, Kind::kNumeric,
                               Kind::kPerplexity};

Kind parse_kind(const std::string& name, const std::string& where) {
  std::vector<std::string> names;
  for (const Kind kind : kKinds) {
    if (kind_name(kind) == name) return kind;
    names.emplace_back(kind_name(kind));
  }
  const std::string nearest = nearest_name(name, names);
  fail(where, "no kind '{}'; {}", io::printable(name),
       nearest.empty() ? "use multiple_choice, exact_match, contains, numeric or perplexity"
                       : fmt::format("did you mean '{}'?", nearest));
}

// A file of the task's own directory: neither an absolute path, nor "..", nor a link leads out of it.
fs::path image_file(const std::string& path, const fs::path& directory, const std::string& where) {
  std::error_code error;
  const fs::path file = path.find('\0') == std::string::npos ? fs::canonical(directory / path, error) : fs::path();
  if (file.empty() || error) fail(where, "the image '{}' is not there", io::printable(path));
  const auto [end, rest] = std::mismatch(directory.begin(), directory.end(), file.begin(), file.end());
  if (fs::path(path).is_absolute() || end != directory.end())
    fail(where, "the image '{}' is outside the task's directory; put it beside the task", io::printable(path));
  if (!fs::is_regular_file(file)) fail(where, "the image '{}' is not a file", io::printable(path));
  return file;
}

ImageSource read_image(const Json& json, const fs::path& directory, const std::string& where) {
  if (json.is_string()) return {image_file(json.get<std::string>(), directory, where), {}};
  const Fields fields(json, where);
  fields.check_known({"type", "path", "data"}, "an image");
  if (fields.has("path") == fields.has("data")) fail(where, "an image has either 'path' or 'data'");
  if (fields.has("path")) return {image_file(fields.string("path"), directory, where), {}};
  auto bytes = io::decode_base64(fields.string("data"));
  if (!bytes) fail(where, "the 'data' of an image is not base64");
  return {{}, std::move(*bytes)};
}

// The prompt and its images, as they are read.
class PromptReader {
 public:
  PromptReader(const Fields& fields, const fs::path& directory, Item& item)
      : fields_(fields), directory_(directory), item_(item) {}

  void read() {
    if (fields_.has("prompt") == fields_.has("messages"))
      fail(fields_.where(), "an item has either 'prompt' or 'messages'");
    if (fields_.has("images")) read_images();
    fields_.has("prompt") ? read_prompt() : read_messages();
    place_images();
    if (item_.images.size() > engine::kMaxImages)
      fail(fields_.where(), "has {} images; the limit is {}", item_.images.size(), engine::kMaxImages);
    if (!item_.settings.chat && (!item_.images.empty() || !item_.settings.system.empty() || fields_.has("messages")))
      fail(fields_.where(), "the format 'raw' takes a 'prompt' alone; images, system and messages need 'chat'");
  }

 private:
  void read_images() {
    const Json& list = fields_.at("images");
    if (!list.is_array() || list.size() > engine::kMaxImages)
      fail(fields_.where(), "'images' must be a list of at most {} images", engine::kMaxImages);
    for (const Json& image : list) item_.images.push_back(read_image(image, directory_, fields_.where()));
    listed_ = item_.images.size();
  }

  void read_prompt() {
    if (!item_.settings.system.empty()) add(text::Role::kSystem, {text::TextPart{item_.settings.system}});
    std::vector<text::Part> parts;
    add_text(parts, fields_.string("prompt"));
    add(text::Role::kUser, std::move(parts));
  }

  void read_messages() {
    if (fields_.has("system")) fail(fields_.where(), "'system' goes with 'prompt'; put it into 'messages'");
    const Json& list = fields_.at("messages");
    if (!list.is_array() || list.empty() || list.size() > kMaxList)
      fail(fields_.where(), "'messages' must be a list of 1 to {} messages", kMaxList);
    for (const Json& message : list) read_message(message);
    if (item_.messages.back().role != text::Role::kUser)
      fail(fields_.where(), "the last message must be the user's; the answer to it is what is graded");
    if (!item_.settings.system.empty() && item_.messages.front().role != text::Role::kSystem)
      item_.messages.insert(item_.messages.begin(),
                            {text::Role::kSystem, {text::TextPart{item_.settings.system}}, {}, false});
  }

  void read_message(const Json& json) {
    const Fields message(json, fields_.where());
    message.check_known({"role", "content"}, "a message");
    const std::string role = message.string("role");
    if (role != "system" && role != "user" && role != "assistant")
      fail(fields_.where(), "a message has the role '{}'; expected system, user or assistant", io::printable(role));
    std::vector<text::Part> parts;
    const Json& content = message.at("content");
    if (content.is_string())
      add_text(parts, content.get<std::string>());
    else if (content.is_array() && content.size() <= kMaxList)
      for (const Json& part : content) read_part(part, parts);
    else
      fail(fields_.where(), "the 'content' of a message must be a string or a list of parts");
    add(role == "system" ? text::Role::kSystem
        : role == "user" ? text::Role::kUser
                         : text::Role::kAssistant,
        std::move(parts));
  }

  void read_part(const Json& json, std::vector<text::Part>& parts) {
    const Fields part(json, fields_.where());
    if (part.one_of("type", "text", "image")) {
      if (fields_.has("images")) fail(fields_.where(), "images are either in 'images' or in 'messages', not in both");
      parts.emplace_back(text::ImagePart{item_.images.size()});
      item_.images.push_back(read_image(json, directory_, fields_.where()));
      return;
    }
    part.check_known({"type", "text"}, "a text");
    add_text(parts, part.string("text"));
  }

  // With a list of images, each "<image>" is the place of the next one.
  void add_text(std::vector<text::Part>& parts, std::string_view text) {
    for (size_t place; listed_ > 0 && (place = text.find(kImagePlace)) != std::string_view::npos;) {
      if (place > 0) parts.emplace_back(text::TextPart{std::string(text.substr(0, place))});
      parts.emplace_back(text::ImagePart{placed_++});
      text.remove_prefix(place + kImagePlace.size());
    }
    if (!text.empty()) parts.emplace_back(text::TextPart{std::string(text)});
  }

  // Images without a place come before the last message's text.
  void place_images() {
    if (placed_ == 0) {
      std::vector<text::Part> images;
      for (size_t i = 0; i < listed_; ++i) images.emplace_back(text::ImagePart{i});
      auto& parts = item_.messages.back().parts;
      parts.insert(parts.begin(), images.begin(), images.end());
    } else if (placed_ != listed_) {
      fail(fields_.where(), "has {} images and {} places '{}'", listed_, placed_, kImagePlace);
    }
  }

  void add(text::Role role, std::vector<text::Part> parts) {
    item_.messages.push_back({role, std::move(parts), {}, false});
  }

  const Fields& fields_;
  const fs::path& directory_;
  Item& item_;
  size_t listed_ = 0, placed_ = 0;  // images of the list
};

// A fact that normalises to nothing would be in every answer or in none.
void check_fact(const std::string& fact, const Item& item, const std::string& where, const char* key) {
  if (item.settings.normalise ? normalise(fact).empty() : trim(fact).empty())
    fail(where, "'{}' holds '{}', of which nothing is left to compare", key, io::printable(fact));
}

void read_choices(const Fields& fields, Item& item) {
  item.choices = fields.strings("choices", kMaxList);
  if (item.choices.size() < 2) fail(fields.where(), "'choices' has one entry; at least 2 are needed");
  if (std::find(item.choices.begin(), item.choices.end(), "") != item.choices.end())
    fail(fields.where(), "'choices' holds an empty string");
  if (!fields.at("answer").is_string()) {
    item.right_choice = static_cast<size_t>(fields.integer("answer", 0, static_cast<int64_t>(item.choices.size()) - 1));
    return;
  }
  const auto found = std::find(item.choices.begin(), item.choices.end(), fields.string("answer"));
  if (found == item.choices.end())
    fail(fields.where(), "the answer '{}' is none of the choices", io::printable(fields.string("answer")));
  item.right_choice = static_cast<size_t>(found - item.choices.begin());
}

void read_answers(const Fields& fields, Item& item) {
  if (fields.has("answer") == fields.has("answers")) fail(fields.where(), "an item has either 'answer' or 'answers'");
  item.answers = fields.has("answer") ? std::vector{fields.string("answer")} : fields.strings("answers", kMaxList);
  for (const std::string& answer : item.answers) check_fact(answer, item, fields.where(), "answers");
}

void read_facts(const Fields& fields, Item& item) {
  if (!fields.has("contains") && !fields.has("forbidden"))
    fail(fields.where(), "the key 'contains' is missing (or 'forbidden')");
  if (fields.has("forbidden")) item.forbidden = fields.strings("forbidden", kMaxList);
  for (const std::string& fact : item.forbidden) check_fact(fact, item, fields.where(), "forbidden");
  if (!fields.has("contains")) return;
  const Json& list = fields.at("contains");
  if (!list.is_array() || list.size() > kMaxList)
    fail(fields.where(), "'contains' must be a list of at most {} entries", kMaxList);
  for (const Json& entry : list) {
    const Json alternatives = {{"contains", entry.is_string() ? Json::array({entry}) : entry}};
    item.facts.push_back(Fields(alternatives, fields.where()).strings("contains", kMaxList));
    for (const std::string& fact : item.facts.back()) check_fact(fact, item, fields.where(), "contains");
  }
}

std::vector<std::string> known_keys(Kind kind) {
  if (kind == Kind::kPerplexity) return {"id", "kind", "text"};
  std::vector<std::string> keys = setting_keys();
  keys.insert(keys.end(), {"id", "prompt", "messages", "images"});
  if (kind == Kind::kMultipleChoice) keys.insert(keys.end(), {"choices", "answer"});
  if (kind == Kind::kExactMatch) keys.insert(keys.end(), {"answer", "answers"});
  if (kind == Kind::kContains) keys.insert(keys.end(), {"contains", "forbidden"});
  if (kind == Kind::kNumeric) keys.emplace_back("answer");
  return keys;
}

std::string read_id(const Fields& fields, int64_t line) {
  if (!fields.has("id")) return std::to_string(line);
  const Json& id = fields.at("id");
  if (!id.is_string() && !id.is_number_integer())
    fail(fields.where(), "'id' is {}; expected a string or a whole number", id.type_name());
  return id.is_string() ? id.get<std::string>() : id.dump();
}

}  // namespace

const std::vector<std::string>& setting_keys() {
  static const std::vector<std::string> keys = {"kind",      "max_tokens", "format",    "system", "stop",
                                                "normalise", "match",      "tolerance", "score"};
  return keys;
}

void read_settings(const Fields& fields, Settings& settings) {
  if (fields.has("kind")) settings.kind = parse_kind(fields.string("kind"), fields.where());
  if (fields.has("max_tokens")) settings.max_tokens = fields.integer("max_tokens", 1, 1 << 20);
  if (fields.has("format")) settings.chat = !fields.one_of("format", "chat", "raw");
  if (fields.has("system")) settings.system = fields.string("system");
  if (fields.has("stop")) settings.stop = fields.strings("stop", kMaxList);
  if (std::find(settings.stop.begin(), settings.stop.end(), "") != settings.stop.end())
    fail(fields.where(), "'stop' holds an empty string");
  if (fields.has("normalise")) settings.normalise = fields.boolean("normalise");
  if (fields.has("match")) settings.match_within = fields.one_of("match", "equals", "contains");
  if (fields.has("tolerance")) settings.tolerance = fields.number("tolerance");
  if (settings.tolerance < 0) fail(fields.where(), "'tolerance' is {}; it must not be negative", settings.tolerance);
  if (fields.has("score")) settings.per_byte_choices = fields.one_of("score", "raw", "normalised");
}

Item read_item(const Json& json, const std::string& where, int64_t line, const Settings& defaults,
               const fs::path& directory) {
  const Fields fields(json, where);
  Item item;
  item.line = line;
  item.settings = defaults;
  read_settings(fields, item.settings);
  if (!item.settings.kind) fail(where, "the key 'kind' is missing, in the header as well as here");
  fields.check_known(known_keys(item.kind()), fmt::format("an item of kind {}", kind_name(item.kind())));
  item.id = read_id(fields, line);
  if (item.kind() == Kind::kPerplexity) {
    item.text = fields.string("text");
    if (item.text.empty()) fail(where, "'text' is empty");
    return item;
  }
  PromptReader(fields, directory, item).read();
  if (item.kind() == Kind::kMultipleChoice) read_choices(fields, item);
  if (item.kind() == Kind::kExactMatch) read_answers(fields, item);
  if (item.kind() == Kind::kContains) read_facts(fields, item);
  if (item.kind() == Kind::kNumeric) item.number = fields.number("answer");
  return item;
}

}  // namespace puna::eval
