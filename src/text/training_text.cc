#include "text/training_text.h"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "base/error.h"
#include "base/interrupt.h"
#include "base/json.h"
#include "base/parallel_for.h"
#include "base/progress.h"
#include "io/file.h"

namespace puna::text {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kBlockBytes = 1 << 20;
constexpr size_t kProbedBytes = 8192;

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool is_visible(char c) { return c > ' ' && c < 0x7F; }

std::string_view view_of(const io::MappedFile& file) {
  return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
}

/// Text has no zero bytes; nearly all else has some at its beginning.
bool begins_as_text(const fs::path& path) {
  const auto file = io::MappedFile::open(path);
  return view_of(*file).substr(0, kProbedBytes).find('\0') == std::string_view::npos;
}

TrainingFile training_file(const fs::path& path) {
  const auto file = io::MappedFile::open(path);
  return {path, static_cast<int64_t>(file->bytes().size()), path.extension() == ".jsonl"};
}

void add_directory(const fs::path& dir, TrainingFiles& out) {
  std::vector<fs::path> found;
  for (auto entry = fs::recursive_directory_iterator(dir); entry != fs::recursive_directory_iterator(); ++entry) {
    const bool hidden = entry->path().filename().native().starts_with('.');
    if (hidden && entry->is_directory()) entry.disable_recursion_pending();
    if (!hidden && entry->is_regular_file() && entry->file_size() > 0) found.push_back(entry->path());
  }
  std::sort(found.begin(), found.end());
  for (const fs::path& path : found) {
    if (begins_as_text(path))
      out.files.push_back(training_file(path));
    else
      ++out.left_out;
  }
}

// A part of a file: blocks of it that begin within [begin, end), the edges moved on to the next place for a cut.
struct Block {
  const TrainingFile* file;
  int64_t begin, end;
};

std::vector<Block> blocks_of(const TrainingFiles& files) {
  std::vector<Block> blocks;
  for (const TrainingFile& file : files.files)
    for (int64_t begin = 0; begin < file.bytes; begin += kBlockBytes)
      blocks.push_back({&file, begin, std::min(begin + kBlockBytes, file.bytes)});
  return blocks;
}

size_t next_line(std::string_view text, size_t from) {
  if (from == 0 || from >= text.size()) return std::min(from, text.size());
  const size_t newline = text.find('\n', from - 1);
  return newline == std::string_view::npos ? text.size() : newline + 1;
}

void add_content(const Json& content, PieceCounts& counts) {
  if (content.is_string()) counts.add_text(content.get_ref<const std::string&>());
  if (!content.is_array()) return;
  for (const Json& part : content)
    if (part.is_object() && part.contains("text") && part["text"].is_string())
      counts.add_text(part["text"].get_ref<const std::string&>());
}

void add_json_line(std::string_view line, const std::string& where, PieceCounts& counts) {
  const Json json = parse_json(line, where);
  const bool has_text = json.is_object() && json.contains("text") && json["text"].is_string();
  const bool has_messages = json.is_object() && json.contains("messages") && json["messages"].is_array();
  if (!has_text && !has_messages) fail(where, "has neither a string 'text' nor a list 'messages'");
  if (has_text) add_content(json["text"], counts);
  if (!has_messages) return;
  for (const Json& message : json["messages"])
    if (message.is_object() && message.contains("content")) add_content(message["content"], counts);
}

void add_json_lines(const TrainingFile& file, std::string_view text, size_t begin, size_t end, PieceCounts& counts) {
  while (begin < end) {
    const size_t next = next_line(text, begin + 1);
    const std::string_view line = text.substr(begin, next - begin);
    if (line.find_first_not_of(" \t\r\n") != std::string_view::npos) {
      try {
        add_json_line(line, "line", counts);
      } catch (const Error&) {  // once more, with its number
        const auto number = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(begin), '\n') + 1;
        PieceCounts scratch;
        add_json_line(line, fmt::format("{}:{}", file.path.string(), number), scratch);
      }
    }
    begin = next;
  }
}

void add_block(const Block& block, PieceCounts& counts) {
  const auto file = io::MappedFile::open(block.file->path);
  const std::string_view text = view_of(*file);
  const auto cut = [&](int64_t at) {
    const auto from = static_cast<size_t>(at);
    return block.file->json_lines ? next_line(text, from) : next_cut(text, from);
  };
  const size_t begin = cut(block.begin), end = cut(block.end);
  if (block.file->json_lines)
    add_json_lines(*block.file, text, begin, end, counts);
  else
    counts.add_text(text.substr(begin, end - begin));
}

/// Adds all up in counts[0], two at a time.
void add_up(std::vector<PieceCounts>& counts, int64_t threads) {
  const auto n = std::ssize(counts);
  for (int64_t step = 1; step < n; step *= 2) {
    parallel_for((n + 2 * step - 1) / (2 * step), threads, [&](int64_t i) {
      const auto to = static_cast<size_t>(i * 2 * step), from = to + static_cast<size_t>(step);
      if (from >= counts.size()) return;
      counts[to].add_all(counts[from]);
      counts[from] = PieceCounts();
    });
  }
}

}  // namespace

// After a newline comes a new piece unless white space or '/' follows; between two words the blank begins the second.
size_t next_cut(std::string_view text, size_t from) {
  if (from == 0) return 0;
  for (size_t i = from; i < text.size(); ++i) {
    if (text[i - 1] == '\n' && is_visible(text[i]) && text[i] != '/') return i;
    if (text[i] == ' ' && is_letter(text[i - 1]) && i + 1 < text.size() && is_letter(text[i + 1])) return i;
  }
  return text.size();
}

TrainingFiles find_training_files(std::span<const fs::path> paths) {
  TrainingFiles out;
  for (const fs::path& path : paths) {
    if (!io::path_exists(path)) fail(path.string(), "no such file or directory");
    if (fs::is_directory(path))
      add_directory(path, out);
    else
      out.files.push_back(training_file(path));
  }
  for (const TrainingFile& file : out.files) out.bytes += file.bytes;
  return out;
}

PieceCounts count_pieces(const TrainingFiles& files, int64_t threads, const std::atomic<bool>* interrupt) {
  const std::vector<Block> blocks = blocks_of(files);
  const int64_t workers = std::clamp<int64_t>(std::ssize(blocks), 1, threads);
  std::vector<PieceCounts> counts(static_cast<size_t>(workers));
  Progress progress("Reading", files.bytes, Progress::Unit::kBytes);
  std::mutex mutex;
  std::atomic<size_t> next = 0;
  std::atomic<bool> stop = false;
  parallel_for(workers, workers, [&](int64_t worker) {
    try {
      for (size_t i; !stop && (i = next++) < blocks.size();) {
        stop_if_interrupted(interrupt);
        add_block(blocks[i], counts[static_cast<size_t>(worker)]);
        std::lock_guard lock(mutex);
        progress.add(blocks[i].end - blocks[i].begin);
      }
    } catch (...) {
      stop = true;
      throw;
    }
  });
  add_up(counts, threads);
  return std::move(counts[0]);
}

}  // namespace puna::text
