#include "cli/conversation.h"

#include "base/error.h"
#include "base/json.h"
#include "io/file.h"

namespace puna::cli {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFormat = "puna conversation 1";

std::string string_at(const Json& json, const char* key, const std::string& where) {
  if (!json.is_object() || !json.contains(key) || !json[key].is_string())
    fail(where, "an entry has no text '{}'; is this a conversation that /save wrote?", key);
  return json[key].get<std::string>();
}

// One message of the file; images are appended to `files`.
text::Message read_message_json(const Json& json, const std::string& where, std::vector<std::string>& files) {
  const std::string role = string_at(json, "role", where);
  if (role != "user" && role != "assistant")
    fail(where, "has a message of role '{}'; expected user or assistant", role);
  text::Message message{role == "user" ? text::Role::kUser : text::Role::kAssistant, {}, {}, false};
  if (!json.contains("content") || !json["content"].is_array()) fail(where, "has a message without a list 'content'");
  for (const Json& part : json["content"]) {
    const std::string type = string_at(part, "type", where);
    if (type == "text") {
      message.parts.push_back(text::TextPart{string_at(part, "text", where)});
    } else if (type == "image") {
      message.parts.push_back(text::ImagePart{files.size()});
      files.push_back(string_at(part, "path", where));
    } else {
      fail(where, "has a part of type '{}'; expected text or image", type);
    }
  }
  return message;
}

}  // namespace

engine::Prompt Conversation::prompt() const {
  std::vector<text::Message> all;
  if (!system_.empty()) all.push_back({text::Role::kSystem, {text::TextPart{system_}}, {}, false});
  all.insert(all.end(), messages_.begin(), messages_.end());
  return engine::chat_prompt(loaded_, all, images_);
}

engine::Generation Conversation::say(const std::string& text, const engine::GenerateOptions& options) {
  text::Message user{text::Role::kUser, waiting_, {}, false};
  user.parts.push_back(text::TextPart{text});
  messages_.push_back(std::move(user));
  try {
    engine::Generation answer = engine::generate(engine_, prompt(), options);
    if (answer.tokens.empty() && answer.reason == engine::StopReason::kCancelled) {
      messages_.pop_back();
      return answer;
    }
    messages_.push_back({text::Role::kAssistant, {text::TextPart{answer.text}}, {}, false});
    waiting_.clear();
    return answer;
  } catch (...) {
    messages_.pop_back();
    throw;
  }
}

void Conversation::add_image(const fs::path& file) {
  engine::check_images(loaded_, images_.size() + 1);
  images_.push_back(engine::encode_image_file(loaded_, file));
  image_files_.push_back(fs::absolute(file).string());
  waiting_.push_back(text::ImagePart{images_.size() - 1});
}

void Conversation::reset() {
  messages_.clear();
  images_.clear();
  image_files_.clear();
  waiting_.clear();
}

void Conversation::save(const fs::path& file) const {
  Json json = {{"format", kFormat}, {"model", loaded_.name}, {"system", system_}, {"messages", Json::array()}};
  for (const text::Message& message : messages_) {
    Json parts = Json::array();
    for (const text::Part& part : message.parts) {
      if (const auto* image = std::get_if<text::ImagePart>(&part))
        parts.push_back({{"type", "image"}, {"path", image_files_[image->image]}});
      else
        parts.push_back({{"type", "text"}, {"text", std::get<text::TextPart>(part).text}});
    }
    json["messages"].push_back(
        {{"role", message.role == text::Role::kUser ? "user" : "assistant"}, {"content", std::move(parts)}});
  }
  io::write_file(file, json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

void Conversation::save_cache(const fs::path& file) { engine_.save_prefix(prompt(), file); }

void Conversation::load(const fs::path& file) {
  const std::string where = file.string();
  const Json json = read_json_file(file);
  if (string_at(json, "format", where) != kFormat) fail(where, "is no '{}' file", kFormat);
  if (!json.contains("messages") || !json["messages"].is_array()) fail(where, "has no list 'messages'");
  const std::string system = string_at(json, "system", where);
  std::vector<text::Message> messages;
  std::vector<std::string> files;
  std::vector<engine::EncodedImage> images;
  for (const Json& message : json["messages"]) messages.push_back(read_message_json(message, where, files));
  engine::check_images(loaded_, files.size());
  for (const std::string& image : files) images.push_back(engine::encode_image_file(loaded_, image));
  system_ = system;
  messages_ = std::move(messages);
  images_ = std::move(images);
  image_files_ = std::move(files);
  waiting_.clear();
}

}  // namespace puna::cli
