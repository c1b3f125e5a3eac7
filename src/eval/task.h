// Tasks as files give them (docs/EVAL.md): one JSON object a line, an optional header first.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/chat.h"

namespace puna::eval {

enum class Kind { kMultipleChoice, kExactMatch, kContains, kNumeric, kPerplexity };
std::string_view kind_name(Kind kind);  // "multiple_choice", ...

/// What the header says for all items, and an item may say for itself.
struct Settings {
  std::optional<Kind> kind;
  int64_t max_tokens = 64;
  bool chat = true;  // the model's chat format, else the bare text
  std::string system;
  std::vector<std::string> stop;
  bool normalise = true;          // see eval/answer.h
  bool match_within = false;      // exact_match: an accepted answer may stand anywhere in the answer
  double tolerance = 0;           // numeric: |answer - expected| at most
  bool per_byte_choices = false;  // multiple_choice: the length-normalised choice is the one that counts
};

/// An image of an item: a file beside the task, or its bytes.
struct ImageSource {
  std::filesystem::path file;  // inside the task's directory; empty: `bytes`
  std::string bytes;           // PNG, JPEG or WebP
};

struct Item {
  int64_t line = 0;  // of the file, from 1
  std::string id;    // as given, else the line
  Settings settings;
  std::vector<text::Message> messages;  // with settings.chat false, one user message of one text
  std::vector<ImageSource> images;

  std::vector<std::string> choices;  // multiple_choice
  size_t right_choice = 0;
  std::vector<std::string> answers;             // exact_match: any of them
  std::vector<std::vector<std::string>> facts;  // contains: of each entry, one must occur
  std::vector<std::string> forbidden;           // contains: none may occur
  double number = 0;                            // numeric
  std::string text;                             // perplexity

  Kind kind() const { return *settings.kind; }
};

struct Task {
  std::string name;  // the file's stem
  std::string title;
  std::filesystem::path file;
  std::optional<double> threshold;  // accuracy at least, bits per byte at most
  int64_t context = 8192;           // perplexity: tokens per window
  std::vector<Item> items;          // perplexity items alone, or none of them

  bool is_perplexity() const { return items.front().kind() == Kind::kPerplexity; }
  /// "file.jsonl:12", for errors.
  std::string place(const Item& item) const;
};

/// Reads a task, at most `limit` items of it (0: all). Throws Error, naming file and line, for whatever is malformed:
/// bad JSON, unknown keys (with the nearest), missing or misplaced values, images that leave the task's directory.
Task read_task(const std::filesystem::path& file, int64_t limit = 0);

/// The files of tasks that come with a model: *.jsonl in `model`/eval, sorted by name; empty when there are none.
std::vector<std::filesystem::path> shipped_tasks(const std::filesystem::path& model);

/// The file that `name` means: a task that comes with `model`, else a file. Throws Error, with the nearest name.
std::filesystem::path find_task(const std::string& name, const std::filesystem::path& model);

/// The prompt for people: text as it is, "<image>" for images, "role: " before each message when there are several.
std::string prompt_text(const Item& item);

}  // namespace puna::eval
