#include "base/json.h"

#include <fstream>
#include <string>
#include <type_traits>
#include <unordered_set>
#include <vector>

#include "base/error.h"

namespace puna {
namespace {

constexpr size_t kMaxDepth = 128;
constexpr size_t kMaxOrderedKeys = 10'000, kFewKeys = 16;
constexpr size_t kMaxOrderedBytes = size_t{256} << 20;  // of the document in memory, roughly:
constexpr size_t kValueBytes = 24, kStringBytes = 40, kOpenBytes = 40, kKeyBytes = 48;
using OrderedMembers = std::vector<std::pair<const std::string, OrderedJson>>;

/// Builds the document from the parser's events; the object under construction itself tells of duplicate keys.
template <typename Document>
class DocumentBuilder : public nlohmann::json_sax<Document> {
 public:
  DocumentBuilder(Document& root, std::string_view where) : root_(root), where_(where) {}

  bool null() override { return add(nullptr), true; }
  bool boolean(bool value) override { return add(value), true; }
  bool number_integer(int64_t value) override { return add(value), true; }
  bool number_unsigned(uint64_t value) override { return add(value), true; }
  bool number_float(double value, const std::string&) override { return add(value), true; }
  bool string(std::string& value) override { return count(kStringBytes + value.size()), add(std::move(value)), true; }
  bool binary(typename Document::binary_t&) override { return false; }  // JSON text has none
  bool start_object(size_t) override { return keys_.emplace_back(), open(Document::object()); }
  bool start_array(size_t) override { return open(Document::array()); }
  bool end_object() override { return keys_.pop_back(), open_.pop_back(), true; }
  bool end_array() override { return open_.pop_back(), true; }

  bool key(std::string& name) override {
    auto& object = open_.back()->template get_ref<typename Document::object_t&>();
    if constexpr (kIsOrdered) {
      if (object.size() >= kMaxOrderedKeys) fail(where_, "an object has more than {} keys", kMaxOrderedKeys);
      check_new(object, name);
      count(kKeyBytes + name.size());
      value_ = &static_cast<OrderedMembers&>(object).emplace_back(std::move(name), nullptr).second;
    } else {
      const auto [entry, is_new] = object.emplace(std::move(name), nullptr);
      if (!is_new) fail_twice(entry->first);
      value_ = &entry->second;
    }
    return true;
  }

  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception& e) override {
    std::string_view reason = e.what();  // "[json.exception.parse_error.101] parse error at line 1, column 2: ..."
    if (const auto end = reason.find("] "); end != std::string_view::npos) reason.remove_prefix(end + 2);
    fail(where_, "not valid JSON: {}", reason.substr(0, 300));
  }

 private:
  /// Puts the value where the parser is: the root, the end of the open array, or behind the last key.
  Document& add(Document&& value) {
    count(kValueBytes);
    if (open_.empty()) return root_ = std::move(value);
    if (open_.back()->is_array()) return open_.back()->emplace_back(std::move(value));
    return *value_ = std::move(value);
  }

  [[noreturn]] void fail_twice(const std::string& name) const {
    fail(where_, "the key '{}' appears twice in one object", name.substr(0, 200));
  }

  /// An ordered object finds a key by looking at all: beyond a few they are kept beside it too.
  void check_new(const typename Document::object_t& object, const std::string& name) {
    auto& keys = keys_.back();
    if (object.size() < kFewKeys) {
      for (const auto& member : object)
        if (member.first == name) fail_twice(name);
      return;
    }
    if (keys.empty())
      for (const auto& member : object) keys.insert(member.first);
    if (!keys.insert(name).second) fail_twice(name);
  }

  /// Ordered documents come from whoever asks a server: a few bytes of text must not become many of memory.
  void count(size_t bytes) {
    bytes_ += bytes;
    if (kIsOrdered && bytes_ > kMaxOrderedBytes)
      fail(where_, "the JSON would take more than {} MiB of memory", kMaxOrderedBytes >> 20);
  }

  bool open(Document&& value) {
    count(kOpenBytes);
    open_.push_back(&add(std::move(value)));
    if (open_.size() > kMaxDepth) fail(where_, "the JSON is nested deeper than {} levels", kMaxDepth);
    return true;
  }

  static constexpr bool kIsOrdered = std::is_same_v<Document, OrderedJson>;

  Document& root_;
  std::string_view where_;
  std::vector<std::unordered_set<std::string>> keys_;  // of each open object that has more than a few
  std::vector<Document*> open_;                        // open objects and arrays, innermost last
  Document* value_ = nullptr;                          // of the last key
  size_t bytes_ = 0;
};

template <typename Document>
Document parse(std::string_view text, std::string_view where) {
  Document root;
  DocumentBuilder<Document> builder(root, where);
  Document::sax_parse(text, &builder);
  return root;
}

}  // namespace

Json parse_json(std::string_view text, std::string_view where) { return parse<Json>(text, where); }

OrderedJson parse_ordered_json(std::string_view text, std::string_view where) {
  return parse<OrderedJson>(text, where);
}

Json read_json_file(const std::filesystem::path& path, int64_t max_bytes) {
  std::error_code ec;
  if (std::filesystem::is_directory(path, ec)) fail(path.string(), "is a directory, expected a JSON file");
  const auto size = std::filesystem::file_size(path, ec);
  if (ec) fail(path.string(), "cannot be read: {}", ec.message());
  if (size > static_cast<uintmax_t>(max_bytes))
    fail(path.string(), "has {} bytes, more than the limit of {}", size, max_bytes);
  std::ifstream in(path, std::ios::binary);
  std::string text(size, '\0');
  if (!in.read(text.data(), static_cast<std::streamsize>(size))) fail(path.string(), "cannot be read to its end");
  return parse_json(text, path.string());
}

}  // namespace puna
