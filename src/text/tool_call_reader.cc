#include "text/tool_call_reader.h"

#include <algorithm>
#include <unordered_set>

#include "text/utf8.h"

namespace puna::text {
namespace {

constexpr std::string_view kCallSuffix = ".call";  // Meta's built-in tools: brave_search.call(query="..")

bool is_space(int c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_letter(int c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c >= 0x80; }
bool is_word(int c) { return is_letter(c) || (c >= '0' && c <= '9'); }
bool is_name(int c) { return is_word(c) || c == '.' || c == '-' || c == '/' || c == ':'; }

bool is_name(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_name(static_cast<uint8_t>(c)); });
}

class PythonCallReader : public ToolCallReader {
 public:
  PythonCallReader(const ToolNames& names, CallPlace place)
      : ToolCallReader(names, LiteralStyle::kPython), place_(place) {}

  ReadStep feed(int c) override {
    switch (state_) {
      case State::kName:
        return name(c);
      case State::kArgument:
        return argument(c);
      case State::kWord:
        return word(c);
      case State::kValue:
        return value(c);
      case State::kNext:
        return next(c);
      case State::kLookAhead:
        return look_ahead(c);
    }
    return ReadStep::kBad;
  }

 private:
  enum class State { kName, kArgument, kWord, kValue, kNext, kLookAhead };

  ReadStep go(State state) {
    state_ = state;
    return ReadStep::kTaken;
  }

  ReadStep name(int c) {
    const bool allow_any = place_ == CallPlace::kList;
    if (c == '(') {
      const auto tool = names_.resolve(name_, allow_any);
      if (!tool) return ReadStep::kBad;
      name_ = *tool;
      arguments_ += '{';
      return go(State::kArgument);
    }
    if (!is_name(c)) return ReadStep::kBad;
    name_ += static_cast<char>(c);
    return names_.may_begin(name_, allow_any) ? ReadStep::kTaken : ReadStep::kBad;
  }

  ReadStep argument(int c) {
    if (is_space(c)) return ReadStep::kTaken;
    if (c == ')') return close();
    if (is_letter(c)) {
      word_ = static_cast<char>(c);
      word_ended_ = false;
      return go(State::kWord);
    }
    return c != kEndOfText && begin_positional() ? value(c) : ReadStep::kBad;
  }

  /// The name of an argument, or a constant that goes without one.
  ReadStep word(int c) {
    if (!word_ended_ && is_word(c)) {
      word_ += static_cast<char>(c);
      return word_.size() <= kMaxToolNameBytes ? ReadStep::kTaken : ReadStep::kBad;
    }
    word_ended_ = true;
    if (is_space(c)) return ReadStep::kTaken;
    if (c == '=') {
      has_named_ = is_cut_ = true;
      return begin_value(word_) ? go(State::kValue) : ReadStep::kBad;
    }
    if (c == kEndOfText || !begin_positional()) return ReadStep::kBad;
    for (const char byte : word_)
      if (value(static_cast<uint8_t>(byte)) != ReadStep::kTaken) return ReadStep::kBad;
    return value(c);
  }

  bool begin_positional() {
    const auto& parameters = names_.parameters(name_);
    return !has_named_ && keys_.size() < parameters.size() && begin_value(parameters[keys_.size()]);
  }

  bool begin_value(const std::string& written) {
    const std::string key = replace_invalid_utf8(written);
    if (!keys_.insert(key).second) return false;
    arguments_ += keys_.size() > 1 ? ",\"" : "\"";
    append_json_escaped(arguments_, key);
    arguments_ += "\":";
    literal_.reset();
    state_ = State::kValue;
    return true;
  }

  ReadStep value(int c) {
    const ReadStep step = literal_.feed(c);
    if (step == ReadStep::kBad) return step;
    may_announce_ = may_announce_ || (place_ != CallPlace::kLine && literal_.has_begun());
    if (step == ReadStep::kDoneBefore) return next(c);
    return step == ReadStep::kDone ? go(State::kNext) : step;
  }

  ReadStep next(int c) {
    if (is_space(c)) return go(State::kNext);
    if (c == ',') return go(State::kArgument);
    return c == ')' ? close() : ReadStep::kBad;
  }

  ReadStep close() {
    arguments_ += '}';
    return may_announce_ ? ReadStep::kDone : go(State::kLookAhead);
  }

  ReadStep look_ahead(int c) {
    if (c == ' ' || c == '\t' || (place_ == CallPlace::kList && is_space(c))) {
      ++look_ahead_;
      return ReadStep::kTaken;
    }
    const bool ends = c == kEndOfText || c == '<' || c == ';' ||
                      (place_ == CallPlace::kList ? c == ',' || c == ']' : c == '\n' || c == '\r');
    return ends ? ReadStep::kDoneBefore : ReadStep::kBad;
  }

  CallPlace place_;
  State state_ = State::kName;
  std::string word_;
  bool word_ended_ = false;
  bool has_named_ = false;
  std::unordered_set<std::string> keys_;
};

class JsonCallReader : public ToolCallReader {
 public:
  explicit JsonCallReader(const ToolNames& names)
      : ToolCallReader(names, LiteralStyle::kJson),
        string_(LiteralStyle::kJson),
        null_(null_text_, LiteralStyle::kJson, 0) {}

  ReadStep feed(int c) override {
    const ReadStep step = feed_state(c);
    if (step != ReadStep::kBad && !name_.empty() && has_begun_) may_announce_ = true;
    return step;
  }

 private:
  enum class State { kOpen, kKey, kInKey, kColon, kField, kInField, kObject, kInText, kNull, kNext };

  ReadStep go(State state) {
    state_ = state;
    return ReadStep::kTaken;
  }

  ReadStep feed_state(int c) {
    switch (state_) {
      case State::kInKey:
      case State::kInField:
        return field_text(c);
      case State::kObject:
        return object(c);
      case State::kInText:
        return arguments_text(c);
      case State::kNull:
        return null(c);
      default:
        break;
    }
    if (is_space(c)) return ReadStep::kTaken;
    const bool is_whole = !name_.empty() && has_arguments_;
    switch (state_) {
      case State::kOpen:
        return c == '{' ? go(State::kKey) : ReadStep::kBad;
      case State::kKey:
        if (c != '"' && c != '\'') break;
        open_string(c);
        return go(State::kInKey);
      case State::kColon:
        return c == ':' ? go(State::kField) : ReadStep::kBad;
      case State::kField:
        return field(c);
      case State::kNext:
        if (c == ',') return go(State::kKey);
        break;
      default:
        break;
    }
    if (!is_whole) return ReadStep::kBad;
    return c == '}' ? ReadStep::kDone : c == kEndOfText ? ReadStep::kDoneBefore : ReadStep::kBad;
  }

  void open_string(int quote) {
    text_.clear();
    string_.open(static_cast<char>(quote));
  }

  /// A key, or the value of "type", "name" and "id".
  ReadStep field_text(int c) {
    const ReadStep step = string_.feed(c);
    text_ += string_.take_text();
    if (step == ReadStep::kBad || text_.size() > kMaxToolNameBytes) return ReadStep::kBad;
    if (step != ReadStep::kDone) return step;
    if (state_ == State::kInKey) {
      key_ = text_ == "arguments" ? "parameters" : text_;
      const bool is_known = key_ == "type" || key_ == "name" || key_ == "id" || key_ == "parameters";
      return is_known && keys_.insert(key_).second ? go(State::kColon) : ReadStep::kBad;
    }
    if (key_ == "type" && text_ != "function") return ReadStep::kBad;
    if (key_ == "name") {
      const auto tool = names_.resolve(text_, true);
      if (!tool) return ReadStep::kBad;
      name_ = *tool;
    }
    return go(State::kNext);
  }

  ReadStep field(int c) {
    const bool is_string = c == '"' || c == '\'';
    if (is_string) open_string(c);
    if (key_ != "parameters") return is_string ? go(State::kInField) : ReadStep::kBad;
    if (is_string) return go(State::kInText);
    if (c == 'n' || c == 'N') {
      state_ = State::kNull;
      return null_.feed(c);
    }
    if (c != '{') return ReadStep::kBad;
    state_ = State::kObject;
    return object(c);
  }

  ReadStep object(int c) {
    is_cut_ = !name_.empty();
    const ReadStep step = literal_.feed(c);
    has_begun_ = literal_.has_begun();
    if (step != ReadStep::kDone) return step;
    has_arguments_ = true;
    return go(State::kNext);
  }

  /// An object that is the text of a string.
  ReadStep arguments_text(int c) {
    is_cut_ = !name_.empty();
    const ReadStep step = string_.feed(c);
    for (const char byte : string_.take_text()) {
      if (is_space(byte) && (arguments_.empty() || has_arguments_)) continue;
      if (has_arguments_ || (arguments_.empty() && byte != '{')) return ReadStep::kBad;
      const ReadStep inner = literal_.feed(static_cast<uint8_t>(byte));
      if (inner == ReadStep::kBad) return inner;
      has_arguments_ = inner == ReadStep::kDone;
      has_begun_ = literal_.has_begun();
    }
    if (step != ReadStep::kDone) return step;
    if (arguments_.empty()) arguments_ += "{}", has_arguments_ = true;
    return has_arguments_ ? go(State::kNext) : ReadStep::kBad;
  }

  ReadStep null(int c) {
    const ReadStep step = null_.feed(c);
    if (step != ReadStep::kDoneBefore) return step;
    if (null_text_ != "null") return ReadStep::kBad;
    arguments_ += "{}";
    has_arguments_ = true;
    state_ = State::kNext;
    return feed_state(c);
  }

  State state_ = State::kOpen;
  StringReader string_;
  std::string null_text_;
  LiteralReader null_;
  std::string key_, text_;
  std::unordered_set<std::string> keys_;
  bool has_begun_ = false, has_arguments_ = false;
};

class TaggedCallReader : public ToolCallReader {
 public:
  explicit TaggedCallReader(const ToolNames& names) : ToolCallReader(names, LiteralStyle::kJson) {}

  ReadStep feed(int c) override {
    if (!has_name_) return name(c);
    if (arguments_.empty()) {
      if (is_space(c)) return ReadStep::kTaken;
      if (c == '<') {
        arguments_ += "{}";
        return ReadStep::kDoneBefore;
      }
      if (c != '{') return ReadStep::kBad;
    }
    is_cut_ = true;
    const ReadStep step = literal_.feed(c);
    may_announce_ = literal_.has_begun();
    return step;
  }

 private:
  ReadStep name(int c) {
    if (c == '>') {
      const auto tool = names_.resolve(name_, true);
      if (!tool) return ReadStep::kBad;
      name_ = *tool;
      has_name_ = true;
      return ReadStep::kTaken;
    }
    if (c == kEndOfText || name_.size() == kMaxToolNameBytes) return ReadStep::kBad;
    name_ += static_cast<char>(c);
    return ReadStep::kTaken;
  }

  bool has_name_ = false;
};

}  // namespace

ToolNames::ToolNames(const ToolCallRules& rules) : any_(rules.any) {
  for (const ToolSignature& tool : rules.tools)
    if (tool.name.size() <= kMaxToolNameBytes) tools_.emplace(tool.name, tool.parameters);
}

std::optional<std::string> ToolNames::resolve(const std::string& written, bool allow_any) const {
  if (tools_.contains(written)) return written;
  std::string stem = written;
  if (stem.ends_with(kCallSuffix)) stem.erase(stem.size() - kCallSuffix.size());
  if (tools_.contains(stem)) return stem;
  if (any_ && allow_any && is_name(stem) && is_letter(static_cast<uint8_t>(stem[0])) &&
      stem.size() <= kMaxToolNameBytes)
    return stem;
  return std::nullopt;
}

bool ToolNames::may_begin(std::string_view prefix, bool allow_any) const {
  if (any_ && allow_any) return prefix.size() <= kMaxToolNameBytes + kCallSuffix.size();
  const auto tool = tools_.lower_bound(prefix);
  if (tool != tools_.end() && tool->first.starts_with(prefix)) return true;
  for (size_t suffix = 1; suffix <= std::min(kCallSuffix.size(), prefix.size()); ++suffix)
    if (prefix.ends_with(kCallSuffix.substr(0, suffix)) && tools_.contains(prefix.substr(0, prefix.size() - suffix)))
      return true;
  return false;
}

const std::vector<std::string>& ToolNames::parameters(const std::string& tool) const {
  static const std::vector<std::string> kNone;
  const auto entry = tools_.find(tool);
  return entry == tools_.end() ? kNone : entry->second;
}

std::unique_ptr<ToolCallReader> read_python_call(const ToolNames& names, CallPlace place) {
  return std::make_unique<PythonCallReader>(names, place);
}
std::unique_ptr<ToolCallReader> read_json_call(const ToolNames& names) {
  return std::make_unique<JsonCallReader>(names);
}
std::unique_ptr<ToolCallReader> read_tagged_call(const ToolNames& names) {
  return std::make_unique<TaggedCallReader>(names);
}

}  // namespace puna::text
