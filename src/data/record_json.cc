#include "data/record_json.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/json.h"
#include "base/suggest.h"
#include "io/base64.h"
#include "io/text.h"

namespace puna::data {
namespace {

constexpr std::string_view kImagePlace = "<image>";

std::string did_you_mean(const std::string& name, const std::vector<std::string>& candidates) {
  const std::string nearest = nearest_name(name, candidates);
  return nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest);
}

void check_keys(const Json& object, const std::vector<std::string>& known, std::string_view where) {
  for (const auto& [key, value] : object.items())
    if (std::find(known.begin(), known.end(), key) == known.end())
      fail(where, "unknown key '{}'{}", io::printable(key), did_you_mean(key, known));
}

const Json& member(const Json& object, const char* key, std::string_view where) {
  const auto found = object.find(key);
  if (found == object.end()) fail(where, "has no '{}'", key);
  return *found;
}

const std::string& text_of(const Json& value, const char* what, std::string_view where) {
  if (!value.is_string()) fail(where, "'{}' is not a string", what);
  return value.get_ref<const std::string&>();
}

const Json& list_of(const Json& value, const char* what, std::string_view where) {
  if (!value.is_array()) fail(where, "'{}' is not a list", what);
  return value;
}

std::string bytes_of(const std::string& base64, std::string_view where) {
  auto bytes = io::decode_base64(base64);
  if (!bytes) fail(where, "the 'data' of an image is not base64");
  return *std::move(bytes);
}

text::Role role_of(const std::string& name, std::string_view where) {
  static const std::vector<std::string> kNames = {"system", "user", "assistant", "tool"};
  constexpr std::array kRoles = {text::Role::kSystem, text::Role::kUser, text::Role::kAssistant, text::Role::kTool};
  const auto found = std::find(kNames.begin(), kNames.end(), name);
  if (found == kNames.end())
    fail(where, "unknown role '{}', expected system, user, assistant or tool{}", io::printable(name),
         did_you_mean(name, kNames));
  return kRoles[static_cast<size_t>(found - kNames.begin())];
}

void add_part(const Json& json, Record& record, const std::string& where, const ReadImage& read_image) {
  auto& parts = record.messages.back().parts;
  if (!json.is_object()) fail(where, "a part of 'content' is not an object");
  const std::string& type = text_of(member(json, "type", where), "type", where);
  if (type == "text") {
    check_keys(json, {"type", "text"}, where);
    parts.emplace_back(text::TextPart{text_of(member(json, "text", where), "text", where)});
    return;
  }
  if (type != "image")
    fail(where, "unknown type '{}' of a part{}", io::printable(type), did_you_mean(type, {"text", "image"}));
  check_keys(json, {"type", "path", "data"}, where);
  if (json.contains("path") == json.contains("data")) fail(where, "an image has either 'path' or 'data'");
  if (json.contains("path"))
    record.images.push_back(read_image(text_of(json["path"], "path", where)));
  else
    record.images.push_back(bytes_of(text_of(json["data"], "data", where), where));
  parts.emplace_back(text::ImagePart{record.images.size() - 1});
}

void add_message(const Json& json, Record& record, const std::string& where, const ReadImage& read_image) {
  if (!json.is_object()) fail(where, "a message is not an object");
  check_keys(json, {"role", "content"}, where);
  text::Message& message = record.messages.emplace_back();
  message.role = role_of(text_of(member(json, "role", where), "role", where), where);
  const Json& content = member(json, "content", where);
  if (content.is_string()) {
    message.parts.emplace_back(text::TextPart{content.get<std::string>()});
  } else {
    if (!content.is_array()) fail(where, "'content' is neither a string nor a list of parts");
    for (const Json& part : content) add_part(part, record, where, read_image);
  }
}

/// Text in which each <image> stands for the next of `images`.
void add_text_with_images(std::string_view text, const Json& images, Record& record, const std::string& where,
                          const ReadImage& read_image) {
  auto& parts = record.messages.emplace_back().parts;
  size_t places = 0;
  for (size_t at; (at = text.find(kImagePlace)) != text.npos; text.remove_prefix(at + kImagePlace.size())) {
    if (at > 0) parts.emplace_back(text::TextPart{std::string(text.substr(0, at))});
    parts.emplace_back(text::ImagePart{places++});
  }
  if (!text.empty()) parts.emplace_back(text::TextPart{std::string(text)});
  if (places != list_of(images, "images", where).size())
    fail(where, "'text' has {} places <image>, 'images' names {}", places, images.size());
  for (const Json& path : images) record.images.push_back(read_image(text_of(path, "images", where)));
}

}  // namespace

Record parse_record(std::string_view line, std::string where, const ReadImage& read_image) {
  const Json json = parse_json(line, where);
  if (!json.is_object()) fail(where, "is not a JSON object; expected one record a line");
  Record record;
  if (json.contains("messages")) {
    check_keys(json, {"messages"}, where);
    record.kind = Record::Kind::kChat;
    for (const Json& message : list_of(json["messages"], "messages", where))
      add_message(message, record, where, read_image);
  } else {
    check_keys(json, {"text", "images", "messages"}, where);
    if (!json.contains("text")) fail(where, "has neither 'text' nor 'messages'");
    const std::string& text = text_of(json["text"], "text", where);
    if (json.contains("images"))
      add_text_with_images(text, json["images"], record, where, read_image);
    else
      record.messages.emplace_back().parts.emplace_back(text::TextPart{text});
  }
  record.id = std::move(where);
  return record;
}

}  // namespace puna::data
