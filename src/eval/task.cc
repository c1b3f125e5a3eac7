#include "eval/task.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/suggest.h"
#include "eval/fields.h"
#include "eval/read_item.h"
#include "io/file.h"

namespace puna::eval {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxFileBytes = int64_t{1} << 30;
constexpr size_t kMaxLineBytes = 16 << 20;

struct Header {
  Settings settings;
  std::string title;
  std::optional<double> threshold;
  int64_t context = 8192;
};

Header read_header(const Json& json, const std::string& where) {
  if (json.size() != 1) fail(where, "the header holds the key 'task' alone; its settings go into that object");
  const Fields fields(json["task"], where);
  std::vector<std::string> known = setting_keys();
  known.insert(known.end(), {"title", "threshold", "context"});
  fields.check_known(known, "the header");
  Header header;
  read_settings(fields, header.settings);
  if (fields.has("title")) header.title = fields.string("title");
  if (fields.has("threshold")) header.threshold = fields.number("threshold");
  if (fields.has("context")) header.context = fields.integer("context", 2, int64_t{1} << 40);
  return header;
}

class TaskReader {
 public:
  TaskReader(const fs::path& file, int64_t limit) : limit_(limit) {
    task_.file = file;
    task_.name = file.stem().string();
  }

  Task read() {
    const std::string text = io::read_file(task_.file, kMaxFileBytes);
    directory_ = fs::canonical(fs::absolute(task_.file).parent_path());
    std::string_view rest = text;
    for (int64_t line = 1; !rest.empty() && !done(); ++line) {
      const std::string_view content = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(content.size() + 1, rest.size()));
      if (content.find_first_not_of(" \t\r") != std::string_view::npos) read_line(content, line);
    }
    if (task_.items.empty()) fail(task_.file.string(), "has no items; docs/EVAL.md shows what a task looks like");
    finish();
    return std::move(task_);
  }

 private:
  bool done() const { return limit_ > 0 && static_cast<int64_t>(task_.items.size()) >= limit_; }

  void read_line(std::string_view content, int64_t line) {
    const std::string where = fmt::format("{}:{}", task_.file.string(), line);
    if (content.size() > kMaxLineBytes)
      fail(where, "the line has {} bytes; the limit is {}", content.size(), kMaxLineBytes);
    const Json json = parse_json(content, where);
    if (json.is_object() && json.contains("task")) {
      if (!first_) fail(where, "a header, which belongs on the first line");
      header_ = read_header(json, where);
    } else {
      Item item = read_item(json, where, line, header_.settings, directory_);
      if (!task_.items.empty() && (item.kind() == Kind::kPerplexity) != task_.is_perplexity())
        fail(where, "perplexity has a task of its own; put such items into another file");
      task_.items.push_back(std::move(item));
    }
    first_ = false;
  }

  void finish() {
    task_.title = std::move(header_.title);
    task_.context = header_.context;
    task_.threshold = header_.threshold;
    const double most = task_.is_perplexity() ? 1e9 : 1;
    if (task_.threshold && (*task_.threshold < 0 || *task_.threshold > most))
      fail(task_.file.string(), "the threshold is {}; {}", *task_.threshold,
           task_.is_perplexity() ? "it is in bits per byte, not negative" : "an accuracy lies between 0 and 1");
  }

  Task task_;
  Header header_;
  fs::path directory_;
  int64_t limit_;
  bool first_ = true;
};

const char* role_name(text::Role role) {
  return role == text::Role::kSystem ? "system" : role == text::Role::kUser ? "user" : "assistant";
}

}  // namespace

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::kMultipleChoice:
      return "multiple_choice";
    case Kind::kExactMatch:
      return "exact_match";
    case Kind::kContains:
      return "contains";
    case Kind::kNumeric:
      return "numeric";
    case Kind::kPerplexity:
      return "perplexity";
  }
  return "";
}

std::string Task::place(const Item& item) const { return fmt::format("{}:{}", file.string(), item.line); }

Task read_task(const fs::path& file, int64_t limit) { return TaskReader(file, limit).read(); }

std::vector<fs::path> shipped_tasks(const fs::path& model) {
  std::vector<fs::path> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(model / "eval", error))
    if (entry.path().extension() == ".jsonl" && entry.is_regular_file()) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

fs::path find_task(const std::string& name, const fs::path& model) {
  std::vector<std::string> names;
  for (const fs::path& file : shipped_tasks(model)) {  // first: a checkout has a file "puna", and the task of that name
    if (file.stem() == name) return file;
    names.push_back(file.stem().string());
  }
  std::error_code error;
  if (fs::is_regular_file(name, error)) return name;
  const std::string nearest = nearest_name(name, names);
  fail("--task", "no file '{}', and no such task comes with the model{}", name,
       nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
}

std::string prompt_text(const Item& item) {
  if (item.kind() == Kind::kPerplexity) return item.text;
  std::string out;
  for (const text::Message& message : item.messages) {
    if (!out.empty()) out += '\n';
    if (item.messages.size() > 1) out += fmt::format("{}: ", role_name(message.role));
    for (const text::Part& part : message.parts)
      out += std::holds_alternative<text::TextPart>(part) ? std::get<text::TextPart>(part).text : "<image>";
  }
  return out;
}

}  // namespace puna::eval
