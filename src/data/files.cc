#include "data/files.h"

#include <algorithm>

#include "base/error.h"
#include "data/record_json.h"
#include "io/file.h"
#include "io/hash.h"
#include "io/image.h"
#include "io/text.h"

namespace puna::data {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxLineBytes = int64_t{256} << 20;
constexpr int64_t kMaxTextBytes = int64_t{1} << 30;

bool is_text(const fs::path& path) { return path.extension() == ".txt" || path.extension() == ".md"; }
bool is_records(const fs::path& path) { return path.extension() == ".jsonl"; }

/// Reads images that a JSONL file names: relative to its directory, and inside it wherever links may lead.
class ImageReader {
 public:
  explicit ImageReader(const fs::path& file)
      : dir_(fs::canonical(file.has_parent_path() ? file.parent_path() : fs::path("."))) {}

  std::string read(const std::string& name, const std::string& where) const {
    if (name.empty() || name.find('\0') != name.npos || fs::path(name).is_absolute()) refuse(name, where);
    std::error_code ec;
    const fs::path path = fs::weakly_canonical(dir_ / name, ec);
    if (ec) fail(where, "the image '{}' cannot be opened: {}", io::printable(name), ec.message());
    if (std::mismatch(dir_.begin(), dir_.end(), path.begin(), path.end()).first != dir_.end()) refuse(name, where);
    if (!io::path_exists(path)) fail(where, "the image '{}' is not in {}", io::printable(name), dir_.string());
    return io::read_file(path, io::ImageLimits().max_bytes);
  }

 private:
  [[noreturn]] void refuse(const std::string& name, const std::string& where) const {
    fail(where, "the image path '{}' is refused: it must lead to a file within {}", io::printable(name), dir_.string());
  }

  fs::path dir_;
};

class FileSource : public RecordSource {
 public:
  explicit FileSource(const std::vector<fs::path>& paths) {
    for (const fs::path& path : paths) add(path);
    if (files_.empty()) fail(paths.empty() ? "data" : paths[0].string(), "holds no *.txt, *.md or *.jsonl file");
    for (const fs::path& file : files_) {
      total_bytes_ += fs::file_size(file);
      fingerprint_ += fmt::format("{} {} {}\n", fs::absolute(file).string(), fs::file_size(file),
                                  fs::last_write_time(file).time_since_epoch().count());
    }
    fingerprint_ = "files " + io::hash_of(std::as_bytes(std::span(fingerprint_)));
  }

  std::optional<Record> next() override {
    while (next_file_ < files_.size() || lines_) {
      if (!lines_) {
        const fs::path& file = files_[next_file_++];
        auto mapped = io::MappedFile::open(file);
        if (is_text(file)) return whole(file, *mapped);
        images_.emplace(file);
        lines_ = std::move(mapped);
        at_ = 0, line_ = 0;
      }
      if (auto record = next_line()) return record;
      lines_ = nullptr;
    }
    return std::nullopt;
  }

  std::string fingerprint() const override { return fingerprint_; }
  double progress() const override {
    return total_bytes_ == 0 ? 1 : static_cast<double>(read_bytes_) / static_cast<double>(total_bytes_);
  }

 private:
  void add(const fs::path& path) {
    if (!io::path_exists(path)) fail(path.string(), "there is no such file or directory");
    if (!fs::is_directory(path)) {
      if (!is_text(path) && !is_records(path))
        fail(path.string(), "is neither *.txt, *.md nor *.jsonl; rename it to what it holds");
      files_.push_back(path);
      return;
    }
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(path))
      if (entry.is_regular_file() && (is_text(entry.path()) || is_records(entry.path()))) found.push_back(entry.path());
    std::sort(found.begin(), found.end());
    files_.insert(files_.end(), found.begin(), found.end());
  }

  Record whole(const fs::path& file, const io::MappedFile& mapped) {
    const auto bytes = mapped.bytes();
    if (static_cast<int64_t>(bytes.size()) > kMaxTextBytes)
      fail(file.string(), "has {} bytes, more than the {} of one document; split it", bytes.size(), kMaxTextBytes);
    read_bytes_ += bytes.size();
    Record record;
    record.messages.emplace_back().parts.push_back(
        text::TextPart{std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size())});
    record.id = file.string();
    return record;
  }

  /// The record of the next line that is not blank; nullopt at the end of the file.
  std::optional<Record> next_line() {
    const auto bytes = lines_->bytes();
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    while (at_ < text.size()) {
      const std::string_view line = text.substr(at_, text.substr(at_).find('\n'));
      at_ += line.size() + 1;
      read_bytes_ += line.size() + 1;
      const std::string where = fmt::format("{}:{}", files_[next_file_ - 1].string(), ++line_);
      if (line.find_first_not_of(" \t\r") == line.npos) continue;
      if (static_cast<int64_t>(line.size()) > kMaxLineBytes)
        fail(where, "the line has {} bytes, more than the limit of {}", line.size(), kMaxLineBytes);
      return parse_record(line, where, [&](const std::string& name) { return images_->read(name, where); });
    }
    return std::nullopt;
  }

  std::vector<fs::path> files_;
  std::string fingerprint_;
  uint64_t total_bytes_ = 0, read_bytes_ = 0;
  size_t next_file_ = 0;
  std::shared_ptr<const io::MappedFile> lines_;  // the JSONL file at hand; nullptr between files
  std::optional<ImageReader> images_;
  size_t at_ = 0, line_ = 0;
};

}  // namespace

std::unique_ptr<RecordSource> open_files(const std::vector<fs::path>& paths) {
  return std::make_unique<FileSource>(paths);
}

}  // namespace puna::data
