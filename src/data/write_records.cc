#include "data/write_records.h"

#include <cerrno>
#include <fstream>

#include "base/error.h"
#include "base/json.h"
#include "base/progress.h"
#include "io/directory.h"
#include "io/file.h"

namespace puna::data {
namespace {

namespace fs = std::filesystem;

const char* role_name(text::Role role) {
  switch (role) {
    case text::Role::kSystem:
      return "system";
    case text::Role::kUser:
      return "user";
    case text::Role::kAssistant:
      return "assistant";
    case text::Role::kTool:
      return "tool";
  }
  return "";
}

OrderedJson content_of(const text::Message& message, const std::vector<std::string>& paths) {
  if (message.parts.size() == 1 && std::holds_alternative<text::TextPart>(message.parts[0]))
    return std::get<text::TextPart>(message.parts[0]).text;
  OrderedJson parts = OrderedJson::array();
  for (const text::Part& part : message.parts) {
    if (const auto* piece = std::get_if<text::TextPart>(&part))
      parts.push_back({{"type", "text"}, {"text", piece->text}});
    else
      parts.push_back({{"type", "image"}, {"path", paths.at(std::get<text::ImagePart>(part).image)}});
  }
  return parts;
}

OrderedJson document_json(const Record& record, const std::vector<std::string>& paths) {
  std::string text;
  for (const text::Part& part : record.messages.at(0).parts) {
    const auto* piece = std::get_if<text::TextPart>(&part);
    if (piece && !paths.empty() && piece->text.find("<image>") != piece->text.npos)
      fail(record.id, "its text has '<image>', which would stand for an image in JSONL");
    text += piece ? piece->text : "<image>";
  }
  OrderedJson json = {{"text", text}};
  if (!paths.empty()) json["images"] = paths;
  return json;
}

OrderedJson chat_json(const Record& record, const std::vector<std::string>& paths) {
  OrderedJson messages = OrderedJson::array();
  for (const text::Message& message : record.messages) {
    if (!message.tool_calls.empty()) fail(record.id, "it calls tools, which the JSONL form cannot express");
    messages.push_back({{"role", role_name(message.role)}, {"content", content_of(message, paths)}});
  }
  return {{"messages", std::move(messages)}};
}

std::string_view extension_of(const std::string& image) {
  if (image.starts_with("\x89PNG")) return "png";
  return image.starts_with("\xFF\xD8") ? "jpg" : "webp";
}

// Without a flush to disk for each of thousands: write_records() flushes them together.
void write_image(const fs::path& path, const std::string& image) {
  std::ofstream out(path, std::ios::binary);
  out << image;
  out.close();
  if (!out) fail(path.string(), "cannot be written: {}; is the disk full?", std::generic_category().message(errno));
}

}  // namespace

int64_t write_records(RecordSource& records, const fs::path& dir, const std::string& name) {
  const fs::path file = dir / (name + ".jsonl");
  if (io::path_exists(file)) fail(file.string(), "is already there; remove it, or name another directory");
  io::make_directories(dir);
  io::AtomicFile out(file);
  Progress progress("writing " + name, 0);
  int64_t count = 0, num_images = 0;
  while (const auto record = records.next()) {
    std::vector<std::string> paths;
    for (const std::string& image : record->images) {
      if (num_images == 0) io::make_directories(dir / (name + "-images"));
      paths.push_back(fmt::format("{}-images/{:06}.{}", name, num_images++, extension_of(image)));
      write_image(dir / paths.back(), image);
    }
    const bool is_chat = record->kind == Record::Kind::kChat;
    const OrderedJson json = is_chat ? chat_json(*record, paths) : document_json(*record, paths);
    out.write(json.dump(-1, ' ', false, OrderedJson::error_handler_t::replace) + "\n");
    ++count;
    progress.set(count, records.progress());
  }
  if (num_images > 0) io::sync_file_system(dir);
  out.commit();
  return count;
}

}  // namespace puna::data
