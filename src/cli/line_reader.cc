#include "cli/line_reader.h"

#include <histedit.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <cwchar>
#include <iostream>

#include "base/error.h"

namespace puna::cli {
namespace {

constexpr size_t kMaxMessageBytes = 16 << 20;
constexpr const char* kBlock = "\"\"\"";

class PlainReader : public LineReader {
 public:
  ReadStatus read(bool, std::string& line) override {
    return std::getline(std::cin, line) ? ReadStatus::kLine : ReadStatus::kEnd;
  }
};

class EditedReader : public LineReader {
 public:
  EditedReader(const InterruptGuard& interrupt, const Style& style, const std::optional<std::filesystem::path>& file)
      : interrupt_(interrupt), file_(file ? file->string() : "") {
    std::setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) std::setlocale(LC_CTYPE, "C.UTF-8");  // without a locale, umlauts could not be typed
    // '\1' brackets what takes no room on the screen; libedit loses such a piece at the prompt's end.
    prompts_[0] = style.prompt.empty() ? "> " : fmt::format("\1{}\1>\1{}\1 ", style.prompt, style.reset);
    prompts_[1] = style.prompt.empty() ? ". " : fmt::format("\1{}\1.\1{}\1 ", style.note, style.reset);
    edit_ = el_init("puna", stdin, stdout, stderr);
    PUNA_CHECK(edit_ != nullptr, "libedit did not start");
    el_set(edit_, EL_CLIENTDATA, this);
    el_set(edit_, EL_EDITOR, "emacs");
    el_set(edit_, EL_PROMPT_ESC, &prompt, '\1');
    el_set(edit_, EL_GETCFN, &get_character);
    history_ = history_init();
    history(history_, &event_, H_SETSIZE, 1000);
    history(history_, &event_, H_SETUNIQUE, 1);
    if (!file_.empty()) history(history_, &event_, H_LOAD, file_.c_str());
    el_set(edit_, EL_HIST, ::history, history_);
    el_source(edit_, nullptr);
  }
  ~EditedReader() override {
    history_end(history_);
    el_end(edit_);
  }

  ReadStatus read(bool continuation, std::string& line) override {
    continuation_ = continuation;
    int count = 0;
    el_resize(edit_);
    // Before the prompt shows: an early key must not meet the terminal's own editing.
    el_set(edit_, EL_PREP_TERM, 1);
    const char* text = el_gets(edit_, &count);
    if (!text || count <= 0) {
      std::fputc('\n', stdout);
      return interrupt_.flag() ? ReadStatus::kInterrupted : ReadStatus::kEnd;
    }
    line.assign(text, static_cast<size_t>(count));
    if (line.ends_with('\n')) line.pop_back();
    if (line.find_first_not_of(" \t") != std::string::npos) remember(line);
    return ReadStatus::kLine;
  }

 private:
  static char* prompt(EditLine* edit) {
    auto* self = of(edit);
    return self->prompts_[self->continuation_ ? 1 : 0].data();
  }

  static EditedReader* of(EditLine* edit) {
    void* self = nullptr;
    el_get(edit, EL_CLIENTDATA, &self);
    return static_cast<EditedReader*>(self);
  }

  // libedit's own reader tries again after the first interrupt; this one ends the line.
  static int get_character(EditLine* edit, wchar_t* out) {
    std::mbstate_t state = {};
    for (char byte;;) {
      const ssize_t n = ::read(STDIN_FILENO, &byte, 1);
      if (n == 0) return 0;
      if (n < 0) {
        if (errno == EINTR && !of(edit)->interrupt_.flag()) continue;
        return -1;
      }
      const size_t used = std::mbrtowc(out, &byte, 1, &state);
      if (used == static_cast<size_t>(-1)) state = {};  // invalid: dropped
      if (used <= 1) return 1;
    }
  }

  void remember(const std::string& line) {
    history(history_, &event_, H_ENTER, line.c_str());
    if (!file_.empty()) history(history_, &event_, H_SAVE, file_.c_str());
  }

  const InterruptGuard& interrupt_;
  std::string file_;
  std::string prompts_[2];
  bool continuation_ = false;
  EditLine* edit_;
  History* history_;
  HistEvent event_ = {};
};

}  // namespace

std::unique_ptr<LineReader> make_line_reader(const InterruptGuard& interrupt, const Style& style,
                                             const std::optional<std::filesystem::path>& history) {
  if (isatty(STDIN_FILENO) != 1 || isatty(STDOUT_FILENO) != 1) return std::make_unique<PlainReader>();
  return std::make_unique<EditedReader>(interrupt, style, history);
}

ReadStatus read_message(LineReader& reader, std::string& message) {
  ReadStatus status = reader.read(false, message);
  if (status != ReadStatus::kLine) return status;
  const bool block = message.starts_with(kBlock);
  const auto open = [&] {
    if (block) return message.size() < 6 || !message.ends_with(kBlock);
    return message.ends_with('\\');
  };
  std::string line;
  while (open()) {
    if (message.size() > kMaxMessageBytes) fail("chat", "a message has more than 16 MiB; use a shorter one");
    if (!block) message.pop_back();
    status = reader.read(true, line);
    if (status == ReadStatus::kInterrupted) return status;
    if (status == ReadStatus::kEnd) break;
    message += '\n';
    message += line;
  }
  if (!block) return ReadStatus::kLine;
  message.erase(0, 3);
  if (message.ends_with(kBlock)) message.erase(message.size() - 3);
  if (message.starts_with('\n')) message.erase(0, 1);
  if (message.ends_with('\n')) message.pop_back();
  if (message.starts_with('/')) message = fmt::format("/{}", message);  // a block is never a command
  return ReadStatus::kLine;
}

}  // namespace puna::cli
