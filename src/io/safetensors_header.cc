#include "io/safetensors_header.h"

#include <limits>
#include <unordered_set>

#include "base/error.h"
#include "base/json.h"
#include "io/text.h"

namespace puna::io {
namespace {

// States follow the header's nesting, so its depth is bounded by construction.
enum class State { kStart, kNames, kTensor, kDType, kShape, kOffsets, kMetadata, kDone };

constexpr int kHasDType = 1, kHasShape = 2, kHasOffsets = 4, kHasAll = 7;

// nlohmann's SAX events; every unexpected one is an Error.
class HeaderHandler : public nlohmann::json_sax<Json> {
 public:
  HeaderHandler(std::string_view where, std::map<std::string, std::string>& metadata)
      : where_(where), metadata_(metadata) {}

  std::vector<HeaderTensor> take() { return std::move(tensors_); }

  bool null() override { unexpected("null"); }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool number_float(double, const std::string& text) override { unexpected(text); }
  bool binary(Json::binary_t&) override { unexpected("binary data"); }
  bool number_integer(int64_t value) override { unexpected(std::to_string(value)); }  // negative ones only

  bool number_unsigned(uint64_t value) override {
    if (in_array_ && value > std::numeric_limits<int64_t>::max())
      fail(where_, "tensor '{}' has the number {}, 2^63 or more", printable(tensors_.back().name), value);
    const auto number = static_cast<int64_t>(value);
    if (in_array_ && state_ == State::kShape) {
      tensors_.back().shape.push_back(number);
    } else if (in_array_ && state_ == State::kOffsets && num_offsets_ < 2) {
      (num_offsets_++ == 0 ? tensors_.back().begin : tensors_.back().end) = number;
    } else {
      unexpected(std::to_string(value));
    }
    return true;
  }

  bool string(std::string& text) override {
    if (state_ == State::kMetadata) {
      metadata_[key_] = text;
    } else if (state_ == State::kDType) {
      const auto dtype = dtype_from_name(text);
      if (!dtype || dtype_is_block(*dtype))
        fail(where_,
             "tensor '{}' has the unknown dtype '{}'; known: F64 F32 F16 BF16 F8_E4M3 F8_E5M2 I64 I32 I16 I8 U64 U32 "
             "U16 U8 BOOL",
             printable(tensors_.back().name), printable(text));
      tensors_.back().dtype = *dtype;
      state_ = State::kTensor;
    } else {
      unexpected("'" + text + "'");
    }
    return true;
  }

  bool start_object(size_t) override {
    if (state_ == State::kStart) {
      state_ = State::kNames;
    } else if (state_ == State::kNames) {
      state_ = key_ == "__metadata__" ? State::kMetadata : State::kTensor;
      if (state_ == State::kTensor) {
        tensors_.emplace_back().name = key_;
        fields_ = num_offsets_ = 0;
      }
    } else {
      unexpected("an object");
    }
    return true;
  }

  bool key(std::string& key) override {
    if (state_ == State::kNames) {
      if (!names_.insert(key).second) fail(where_, "the header has the key '{}' twice", printable(key));
    } else if (state_ == State::kMetadata) {
      if (metadata_.contains(key)) fail(where_, "__metadata__ has the key '{}' twice", printable(key));
    } else {
      return field(key);
    }
    key_ = key;
    return true;
  }

  bool end_object() override {
    if (state_ == State::kTensor && fields_ != kHasAll)
      fail(where_, "tensor '{}' lacks its {}", printable(tensors_.back().name),
           !(fields_ & kHasDType)   ? "dtype"
           : !(fields_ & kHasShape) ? "shape"
                                    : "data_offsets");
    state_ = state_ == State::kNames ? State::kDone : State::kNames;
    return true;
  }

  bool start_array(size_t) override {
    if (in_array_ || (state_ != State::kShape && state_ != State::kOffsets)) unexpected("an array");
    in_array_ = true;
    return true;
  }

  bool end_array() override {
    if (state_ == State::kOffsets && num_offsets_ != 2)
      fail(where_, "tensor '{}' has {} data_offsets, expected 2", printable(tensors_.back().name), num_offsets_);
    in_array_ = false;
    state_ = State::kTensor;
    return true;
  }

  bool parse_error(size_t position, const std::string&, const Json::exception&) override {
    fail(where_, "the header is not valid JSON at byte {}; is this a safetensors file?", position);
  }

 private:
  bool field(const std::string& key) {
    const int bit = key == "dtype" ? kHasDType : key == "shape" ? kHasShape : key == "data_offsets" ? kHasOffsets : 0;
    const std::string name = printable(tensors_.back().name);
    if (bit == 0) fail(where_, "tensor '{}' has the unknown field '{}'", name, printable(key));
    if (fields_ & bit) fail(where_, "tensor '{}' has the field '{}' twice", name, key);
    fields_ |= bit;
    state_ = bit == kHasDType ? State::kDType : bit == kHasShape ? State::kShape : State::kOffsets;
    return true;
  }

  [[noreturn]] void unexpected(std::string_view what) const {
    if (state_ == State::kStart) fail(where_, "the header must be a JSON object, found {}", printable(what));
    if (state_ == State::kNames) fail(where_, "'{}' must be an object, found {}", printable(key_), printable(what));
    if (state_ == State::kMetadata)
      fail(where_, "__metadata__ '{}' must be a string, found {}", printable(key_), printable(what));
    const std::string_view field = state_ == State::kDType   ? "dtype"
                                   : state_ == State::kShape ? "shape"
                                                             : "data_offsets";
    fail(where_, "the {} of tensor '{}' cannot be {}", field, printable(tensors_.back().name), printable(what));
  }

  std::string where_;
  std::map<std::string, std::string>& metadata_;
  std::vector<HeaderTensor> tensors_;
  std::unordered_set<std::string> names_;
  State state_ = State::kStart;
  std::string key_;
  int fields_ = 0, num_offsets_ = 0;
  bool in_array_ = false;
};

}  // namespace

std::vector<HeaderTensor> parse_safetensors_header(std::string_view json, std::string_view where,
                                                   std::map<std::string, std::string>& metadata) {
  HeaderHandler handler(where, metadata);
  Json::sax_parse(json.begin(), json.end(), &handler);
  return handler.take();
}

}  // namespace puna::io
