#include "text/tool_call_parser.h"

#include <algorithm>
#include <array>
#include <utility>

#include "text/tool_call_reader.h"
#include "text/utf8.h"

namespace puna::text {
namespace {

using Kind = ToolCallEvent::Kind;

constexpr std::string_view kStart = "<|python_start|>";
constexpr std::string_view kFunction = "<function=";
constexpr std::string_view kFunctionEnd = "</function>";
constexpr std::array kMarkers = {kStart,
                                 std::string_view("<|python_end|>"),
                                 std::string_view("<|eom|>"),
                                 std::string_view("<|eot|>"),
                                 kFunction,
                                 kFunctionEnd};

/// A text that was no call after more than this is not searched for others within it.
constexpr size_t kMaxSearchedAgain = 4096;
constexpr size_t kMaxCutCharacter = 3;  // bytes

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (c & 0x80) != 0; }
bool is_in(char c, std::string_view set) { return set.find(c) != std::string_view::npos; }

/// Bytes at the end that may be the front of a character.
size_t cut_character(std::string_view text) {
  for (size_t size = 1; size <= std::min(kMaxCutCharacter, text.size()); ++size) {
    const auto byte = static_cast<uint8_t>(text[text.size() - size]);
    if (byte < 0x80) return 0;
    if (byte >= 0xC0) return static_cast<size_t>(valid_utf8_length(static_cast<char>(byte))) > size ? size : 0;
  }
  return 0;
}

}  // namespace

class ToolCallParser::Impl {
 public:
  explicit Impl(const ToolCallRules& rules) : names_(rules) {}

  std::vector<ToolCallEvent> push(std::string_view text) {
    again_.push_back({std::string(text)});
    work();
    return take_events(false);
  }

  std::vector<ToolCallEvent> special(std::string_view name) {
    settle();
    begin_boundary(name == kStart);
    return take_events(true);
  }

  std::vector<ToolCallEvent> finish() {
    settle();
    if (after_call_) held_.clear();
    content(std::exchange(held_, {}));
    return take_events(true);
  }

  size_t num_calls() const { return num_calls_; }
  bool complete() const { return complete_; }

 private:
  struct Pending {
    std::string text;
    size_t at = 0;
  };

  // The text in order: first what is read again, at the back of again_.

  void work() {
    while (!again_.empty()) {
      Pending& pending = again_.back();
      if (pending.at == pending.text.size()) {
        again_.pop_back();
      } else {
        step(pending.text[pending.at++]);
      }
    }
  }

  void read_again(std::string text) {
    if (!again_.empty() && again_.back().at == again_.back().text.size()) again_.pop_back();
    again_.push_back({std::move(text)});
  }

  void step(char c) {
    if (reader_) {
      feed(static_cast<uint8_t>(c));
    } else if (is_open_list_) {
      open_list(c);
    } else if (!marker_.empty()) {
      marker(c);
    } else {
      scan(c);
    }
  }

  /// As if the text ended here.
  void settle() {
    while (reader_ || is_open_list_ || !marker_.empty()) {
      if (reader_) {
        feed(kEndOfText);
      } else {
        marker_.clear();
        is_open_list_ = false;
        reject();
      }
      work();
    }
    skip_.reset();
  }

  // Text outside of calls.

  void scan(char c) {
    if (skip_ && skip(c)) return;
    if (after_call_ && in_list_ && c == ']') {
      held_.clear();
      in_list_ = false;
    } else if (at_boundary_ && (is_space(c) || (after_call_ && (c == ',' || c == ';')))) {
      held_ += c;
    } else {
      open(c);
    }
  }

  void open(char c) {
    const bool is_quoted = !at_boundary_ && (is_in(previous_, "\"'`") || previous_visible_ == '=');
    const bool is_index =
        !at_boundary_ && (is_letter(previous_) || is_in(previous_, "0123456789)]")) && (previous_ & 0x80) == 0;
    raw_ = c;
    if (c == '<' && !is_quoted) {
      marker_ = c;
    } else if (c == '[' && !is_quoted && !is_index) {
      is_open_list_ = true;
    } else if (c == '{' && !is_quoted) {
      begin(read_json_call(names_), false);
    } else if (is_letter(c) && (at_boundary_ || is_line_start_)) {
      const bool in_list = after_call_ && in_list_, in_tags = in_tags_ && at_boundary_;
      begin(read_python_call(names_, in_list   ? CallPlace::kList
                                     : in_tags ? CallPlace::kTags
                                               : CallPlace::kLine),
            in_list);
    } else {
      content(std::exchange(raw_, {}));
    }
  }

  void open_list(char c) {
    raw_ += c;
    if (is_space(c) && raw_.size() < kMaxSearchedAgain) return;
    is_open_list_ = false;
    if (c == '{') {
      begin(read_json_call(names_), true);
    } else if (is_letter(c)) {
      begin(read_python_call(names_, CallPlace::kList), true);
    } else {
      reject();
    }
  }

  void marker(char c) {
    marker_ += c;
    raw_ += c;
    const auto fits = [&](std::string_view marker) { return marker.starts_with(marker_); };
    if (std::none_of(kMarkers.begin(), kMarkers.end(), fits)) {
      marker_.clear();
      reject();
    } else if (std::find(kMarkers.begin(), kMarkers.end(), marker_) != kMarkers.end()) {
      take_marker(std::exchange(marker_, {}));
    }
  }

  void take_marker(const std::string& marker) {
    if (marker == kFunction) {
      reader_ = read_tagged_call(names_);
      is_tagged_ = true;
      opens_list_ = false;
    } else if (marker == kStart) {
      held_ += marker;
      begin_boundary(true);
    } else if (after_call_ && (marker != kFunctionEnd || in_function_)) {
      held_.clear();
      if (marker == kFunctionEnd) {
        in_function_ = false;
      } else {
        begin_boundary(false);
      }
    } else {
      in_tags_ = in_tags_ && marker == kFunctionEnd;
      content(std::exchange(raw_, {}));
    }
  }

  /// A JSON document that is no call holds none either: its text goes by. False where it is none.
  bool skip(char c) {
    const ReadStep step = skip_->feed(static_cast<uint8_t>(c));
    skipped_.clear();
    if (step != ReadStep::kTaken) skip_.reset();
    if (step == ReadStep::kBad) return false;
    content(std::string(1, c));
    return true;
  }

  /// Here a call may begin, with nothing before it.
  void begin_boundary(bool in_tags) {
    at_boundary_ = true;
    in_list_ = in_function_ = false;
    in_tags_ = in_tags;
  }

  void content(const std::string& text) {
    if (text.empty()) return;
    const std::string held = std::exchange(held_, {});
    at_boundary_ = after_call_ = in_list_ = in_function_ = false;
    content(held);
    for (const char c : text) {
      if (c == '\n' || !is_space(c)) is_line_start_ = c == '\n';
      if (!is_space(c) || c == '\n') previous_visible_ = c;
      previous_ = c;
    }
    content_ += text;
  }

  // A text that may be a call. raw_ has its bytes until it is announced, then those that its arguments do not show.

  void begin(std::unique_ptr<ToolCallReader> reader, bool opens_list) {
    reader_ = std::move(reader);
    opens_list_ = opens_list;
    is_tagged_ = false;
    feed(static_cast<uint8_t>(raw_.back()), true);
  }

  void feed(int byte, bool is_in_raw = false) {
    if (byte != kEndOfText && !is_in_raw) raw_ += static_cast<char>(byte);
    num_bytes_ = announced_ ? num_bytes_ + 1 : raw_.size();
    const ReadStep step = num_bytes_ > kMaxToolCallBytes ? ReadStep::kBad : reader_->feed(byte);
    if (step == ReadStep::kTaken) {
      if (!announced_ && reader_->may_announce()) announce();
      if (announced_ && reader_->settled() > num_settled_) {
        num_settled_ = reader_->settled();
        raw_.clear();
      }
      return;
    }
    if (step == ReadStep::kBad && !announced_ && !(byte == kEndOfText && reader_->is_cut())) {
      reader_.reset();
      reject();
      return;
    }
    if (!announced_) announce();
    if (step == ReadStep::kBad) {
      end(false, byte == kEndOfText ? 0 : raw_.size());
    } else {
      end(true, reader_->look_ahead() + (step == ReadStep::kDoneBefore && byte != kEndOfText ? 1 : 0));
    }
  }

  void announce() {
    announced_ = true;
    held_.clear();
    flush_content(true);
    events_.push_back({.kind = Kind::kCallBegun, .text = reader_->name(), .call = num_calls_++});
    num_sent_ = num_settled_ = 0;
  }

  void send_arguments(size_t end) {
    if (end <= num_sent_) return;
    events_.push_back({.kind = Kind::kArguments,
                       .text = reader_->arguments().substr(num_sent_, end - num_sent_),
                       .call = num_calls_ - 1});
    num_sent_ = end;
  }

  /// The call has ended; the last `num_after` bytes of raw_ follow it.
  void end(bool is_complete, size_t num_after) {
    send_arguments(is_complete ? reader_->arguments().size() : reader_->settled());
    events_.push_back({.kind = Kind::kCallEnded, .call = num_calls_ - 1, .complete = is_complete});
    complete_ = complete_ && is_complete;
    in_list_ = is_complete && (in_list_ || opens_list_);
    in_function_ = is_complete && is_tagged_;
    after_call_ = true;
    at_boundary_ = is_complete;
    is_line_start_ = false;
    previous_ = previous_visible_ = '\0';
    announced_ = false;
    reader_.reset();
    const std::string raw = std::exchange(raw_, {});
    read_again(raw.substr(raw.size() - num_after));
  }

  /// raw_ is no call: its first bytes are content, and what follows is read again.
  void reject() {
    std::string raw = std::exchange(raw_, {});
    if (raw.size() > kMaxSearchedAgain) {
      content(raw);
    } else if (raw[0] == '[' || raw[0] == '{') {
      skip_ = std::make_unique<LiteralReader>(skipped_, LiteralStyle::kJson, kMaxToolCallDepth, false);
      read_again(std::move(raw));
    } else {
      content(raw.substr(0, 1));
      read_again(raw.substr(1));
    }
  }

  // Events.

  void flush_content(bool whole) {
    const size_t cut = whole ? 0 : cut_character(content_);
    if (content_.size() == cut) return;
    const size_t known = content_.size() - cut;
    events_.push_back({.kind = Kind::kContent, .text = content_.substr(0, known)});
    content_.erase(0, known);
  }

  std::vector<ToolCallEvent> take_events(bool whole) {
    if (announced_) send_arguments(reader_->settled());
    flush_content(whole);
    return std::exchange(events_, {});
  }

  ToolNames names_;
  std::vector<Pending> again_;
  std::vector<ToolCallEvent> events_;
  std::string content_;  // not yet an event
  std::string held_;     // white space and the like: content only if content follows
  std::string raw_, marker_;
  std::unique_ptr<ToolCallReader> reader_;
  std::string skipped_;
  std::unique_ptr<LiteralReader> skip_;
  bool is_open_list_ = false;  // raw_ is '[' and white space
  bool opens_list_ = false;    // that is before the reader's text
  bool is_tagged_ = false;     // <function= is
  bool announced_ = false;     // the reader's call
  bool at_boundary_ = true, after_call_ = false, in_list_ = false, in_function_ = false, in_tags_ = false;
  bool is_line_start_ = true;
  char previous_ = '\0', previous_visible_ = '\0';
  size_t num_bytes_ = 0, num_settled_ = 0, num_sent_ = 0, num_calls_ = 0;
  bool complete_ = true;
};

ToolCallParser::ToolCallParser(const ToolCallRules& rules) : impl_(std::make_unique<Impl>(rules)) {}
ToolCallParser::~ToolCallParser() = default;
ToolCallParser::ToolCallParser(ToolCallParser&&) noexcept = default;
ToolCallParser& ToolCallParser::operator=(ToolCallParser&&) noexcept = default;

std::vector<ToolCallEvent> ToolCallParser::push(std::string_view text) { return impl_->push(text); }
std::vector<ToolCallEvent> ToolCallParser::special(std::string_view name) { return impl_->special(name); }
std::vector<ToolCallEvent> ToolCallParser::finish() { return impl_->finish(); }
size_t ToolCallParser::num_calls() const { return impl_->num_calls(); }
bool ToolCallParser::complete() const { return impl_->complete(); }

}  // namespace puna::text
