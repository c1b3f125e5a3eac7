#include "io/pickle.h"

#include <deque>
#include <unordered_map>

#include "base/error.h"
#include "io/byte_reader.h"
#include "io/pickle_value.h"
#include "io/text.h"

namespace puna::io {
namespace {

using Kind = PickleKind;
using Value = PickleValue;

constexpr size_t kMaxPickleBytes = 32 << 20;
constexpr size_t kMaxValues = 4'000'000;  // 100,000 tensors take about 2 million
constexpr size_t kMaxTensors = 500'000;
constexpr size_t kMaxMarks = 10'000;
constexpr size_t kMaxRank = 16;
constexpr size_t kMaxGlobalBytes = 256;

enum Opcode : uint8_t {
  kMark = '(',
  kStop = '.',
  kEmptyTuple = ')',
  kTuple = 't',
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kEmptyList = ']',
  kAppend = 'a',
  kAppends = 'e',
  kEmptyDict = '}',
  kSetItem = 's',
  kSetItems = 'u',
  kNone = 'N',
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kLong1 = 0x8a,
  kBinFloat = 'G',
  kBinUnicode = 'X',
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kBinBytes = 'B',
  kShortBinBytes = 'C',
  kGlobal = 'c',
  kStackGlobal = 0x93,
  kBinPut = 'q',
  kLongBinPut = 'r',
  kMemoize = 0x94,
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPersId = 'Q',
  kReduce = 'R',
  kNewObj = 0x81,
  kBuild = 'b',
  kProto = 0x80,
  kFrame = 0x95,
};

// All values live in one arena until the end, so cycles and depth are harmless.
class Unpickler {
 public:
  Unpickler(std::span<const std::byte> pickle, std::string_view where) : reader_(pickle, where) {}

  std::vector<PickledTensor> tensors() {
    const Value* root = run();
    if (root->kind != Kind::kDict)
      fail(where(), "holds a {}, expected a dict of tensors", pickle_kind_name(root->kind));
    std::vector<PickledTensor> named;
    for (size_t i = 0; i + 1 < root->items.size(); i += 2) {
      const Value& key = *root->items[i];
      const Value& value = *root->items[i + 1];
      if (key.kind != Kind::kText || !is_valid_utf8(key.text))
        fail(where(), "has a key that is no UTF-8 string ({})", pickle_kind_name(key.kind));
      if (value.kind == Kind::kTensor) {
        named.push_back(tensors_[static_cast<size_t>(value.number)]);
        named.back().name = key.text;
      } else if (!key.text.ends_with("_extra_state")) {
        fail(where(), "the entry '{}' is a {}, not a tensor; save the bare state dict", printable(key.text),
             pickle_kind_name(value.kind));
      }
    }
    return named;
  }

 private:
  const std::string& where() const { return reader_.where(); }

  [[noreturn]] void malformed(std::string_view what) const {
    fail(where(), "malformed pickle before byte {}: {}", reader_.position(), what);
  }

  const Value* run() {
    for (;;) {
      const auto opcode = reader_.read<uint8_t>("a pickle opcode");
      if (opcode == kStop) break;
      if (!container(opcode) && !scalar(opcode) && !reference(opcode) && !call(opcode))
        fail(where(), "refused: the pickle opcode 0x{:02x} at byte {} is none that torch.save writes for tensors",
             opcode, reader_.position() - 1);
    }
    const Value* result = pop();
    if (!stack_.empty() || !marks_.empty()) malformed("values are left over at its end");
    return result;
  }

  bool container(uint8_t opcode) {
    switch (opcode) {
      case kMark:
        if (marks_.size() >= kMaxMarks) malformed("too many open marks");
        marks_.push_back(stack_.size());
        return true;
      case kEmptyTuple:
        push(Kind::kTuple);
        return true;
      case kEmptyList:
        push(Kind::kList);
        return true;
      case kEmptyDict:
        push(Kind::kDict);
        return true;
      case kTuple:
        make_tuple(pop_to_mark());
        return true;
      case kTuple1:
        make_tuple(pop_many(1));
        return true;
      case kTuple2:
        make_tuple(pop_many(2));
        return true;
      case kTuple3:
        make_tuple(pop_many(3));
        return true;
      case kAppend:
        extend(Kind::kList, pop_many(1));
        return true;
      case kAppends:
        extend(Kind::kList, pop_to_mark());
        return true;
      case kSetItem:
        extend(Kind::kDict, pop_many(2));
        return true;
      case kSetItems:
        extend(Kind::kDict, pop_to_mark());
        return true;
      default:
        return false;
    }
  }

  bool scalar(uint8_t opcode) {
    switch (opcode) {
      case kNone:
        push(Kind::kNone);
        return true;
      case kNewTrue:
        push(Kind::kBool).number = 1;
        return true;
      case kNewFalse:
        push(Kind::kBool);
        return true;
      case kBinInt:
        push_int(reader_.read<int32_t>("an integer"));
        return true;
      case kBinInt1:
        push_int(reader_.read<uint8_t>("an integer"));
        return true;
      case kBinInt2:
        push_int(reader_.read<uint16_t>("an integer"));
        return true;
      case kLong1:
        push_int(read_long());
        return true;
      case kBinFloat:
        reader_.take(8, "a float");
        push(Kind::kFloat);
        return true;
      case kBinUnicode:
        push_text(Kind::kText, reader_.read<uint32_t>("a length"));
        return true;
      case kShortBinUnicode:
        push_text(Kind::kText, reader_.read<uint8_t>("a length"));
        return true;
      case kBinUnicode8:
        push_text(Kind::kText, reader_.read<uint64_t>("a length"));
        return true;
      case kBinBytes:
        push_text(Kind::kBytes, reader_.read<uint32_t>("a length"));
        return true;
      case kShortBinBytes:
        push_text(Kind::kBytes, reader_.read<uint8_t>("a length"));
        return true;
      default:
        return false;
    }
  }

  bool reference(uint8_t opcode) {
    switch (opcode) {
      case kBinPut:
        put(reader_.read<uint8_t>("a memo index"));
        return true;
      case kLongBinPut:
        put(reader_.read<uint32_t>("a memo index"));
        return true;
      case kMemoize:
        put(static_cast<uint32_t>(memo_.size()));
        return true;
      case kBinGet:
        get(reader_.read<uint8_t>("a memo index"));
        return true;
      case kLongBinGet:
        get(reader_.read<uint32_t>("a memo index"));
        return true;
      case kProto:
        check_protocol(reader_.read<uint8_t>("the protocol"));
        return true;
      case kFrame:
        reader_.take(8, "a frame");
        return true;
      default:
        return false;
    }
  }

  bool call(uint8_t opcode) {
    switch (opcode) {
      case kGlobal: {
        const std::string_view module = read_line();
        push_global(module, read_line());
        return true;
      }
      case kStackGlobal: {
        const auto names = pop_many(2);
        push_global(expect(names[0], Kind::kText).text, expect(names[1], Kind::kText).text);
        return true;
      }
      case kBinPersId:
        push_storage(*pop());
        return true;
      case kReduce:
      case kNewObj: {
        const auto parts = pop_many(2);
        apply(*expect(parts[0], Kind::kGlobal).global, expect(parts[1], Kind::kTuple).items);
        return true;
      }
      case kBuild: {
        pop();  // an OrderedDict's attributes, or opaque state: not needed
        const Kind kind = top().kind;
        if (kind != Kind::kDict && kind != Kind::kOpaque) malformed("BUILD on a value without state");
        return true;
      }
      default:
        return false;
    }
  }

  // --- the stack -----------------------------------------------------------------------------------------------------
  Value& push(Kind kind) {
    if (arena_.size() >= kMaxValues) fail(where(), "the pickle has over {} values", kMaxValues);
    Value& value = arena_.emplace_back();
    value.kind = kind;
    stack_.push_back(&value);
    return value;
  }

  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }

  Value& top() const {
    if (stack_.size() <= floor()) malformed("the stack is empty");
    return *stack_.back();
  }

  Value* pop() {
    Value* value = &top();
    stack_.pop_back();
    return value;
  }

  std::vector<Value*> pop_many(size_t count) {
    if (stack_.size() - floor() < count) malformed("the stack is empty");
    std::vector<Value*> values(stack_.end() - static_cast<ptrdiff_t>(count), stack_.end());
    stack_.resize(stack_.size() - count);
    return values;
  }

  std::vector<Value*> pop_to_mark() {
    if (marks_.empty()) malformed("there is no mark");
    auto values = pop_many(stack_.size() - floor());
    marks_.pop_back();
    return values;
  }

  const Value& expect(const Value* value, Kind kind) const {
    if (value->kind != kind)
      malformed(fmt::format("found a {}, expected a {}", pickle_kind_name(value->kind), pickle_kind_name(kind)));
    return *value;
  }

  void make_tuple(std::vector<Value*> items) { push(Kind::kTuple).items = std::move(items); }

  void extend(Kind kind, const std::vector<Value*>& values) {
    expect(&top(), kind);
    if (kind == Kind::kDict && values.size() % 2 != 0) malformed("a dict key has no value");
    top().items.insert(top().items.end(), values.begin(), values.end());
  }

  void push_int(int64_t number) { push(Kind::kInt).number = number; }

  void push_text(Kind kind, uint64_t size) {
    const std::string_view text = reader_.text(size, "a string");
    push(kind).text = text;
  }

  int64_t read_long() {
    const auto bytes = reader_.take(reader_.read<uint8_t>("a length"), "an integer");
    if (bytes.size() > 8) fail(where(), "the pickle has an integer of {} bytes, at most 8 are possible", bytes.size());
    if (bytes.empty()) return 0;
    uint64_t number = (std::to_integer<uint8_t>(bytes.back()) & 0x80) ? ~uint64_t{0} : 0;
    for (size_t i = bytes.size(); i-- > 0;) number = number << 8 | std::to_integer<uint64_t>(bytes[i]);
    return static_cast<int64_t>(number);
  }

  std::string_view read_line() {
    const size_t limit = std::min(reader_.remaining(), kMaxGlobalBytes);
    ByteReader ahead = reader_;
    const size_t length = ahead.text(limit, "a global").find('\n');
    if (length == std::string_view::npos) malformed("a global's name does not end");
    return reader_.text(length + 1, "a global").substr(0, length);
  }

  void check_protocol(uint8_t protocol) const {
    if (protocol < 2 || protocol > 5) fail(where(), "pickle protocol {}, 2 to 5 are supported", protocol);
  }

  void put(uint32_t index) {
    if (memo_.size() >= kMaxValues) fail(where(), "the pickle memoizes over {} values", kMaxValues);
    memo_[index] = &top();
  }

  void get(uint32_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) malformed(fmt::format("memo {} is empty", index));
    stack_.push_back(found->second);
  }

  // --- what may be called --------------------------------------------------------------------------------------------
  void push_global(std::string_view module, std::string_view name) {
    const PickleGlobal* global = find_pickle_global(module, name);
    if (!global)
      fail(where(), "refused: {}.{}; a checkpoint needs only tensors, and this file could run code in other programs",
           printable(module), printable(name));
    push(Kind::kGlobal).global = global;
  }

  // ('storage', type, key, location, numel)
  void push_storage(const Value& id) {
    if (id.kind != Kind::kTuple || id.items.size() != 5 || id.items[0]->text != "storage")
      malformed("a persistent id that is no storage");
    const PickleGlobal& type = *expect(id.items[1], Kind::kGlobal).global;
    if (type.kind != GlobalKind::kStorage) malformed("a storage of no storage type");
    const int64_t numel = expect(id.items[4], Kind::kInt).number;
    if (numel < 0) malformed("a storage of negative size");
    storages_.push_back({type.dtype, expect(id.items[2], Kind::kText).text, numel});
    push(Kind::kStorage).number = static_cast<int64_t>(storages_.size()) - 1;
  }

  void apply(const PickleGlobal& global, const std::vector<Value*>& args) {
    switch (global.kind) {
      case GlobalKind::kOrderedDict:
        if (!args.empty()) malformed("an OrderedDict with arguments");
        push(Kind::kDict);
        return;
      case GlobalKind::kRebuildTensorV2:
        return push_tensor(args, 6, std::nullopt);
      case GlobalKind::kRebuildTensorV3:
        if (args.size() < 7 || expect(args[6], Kind::kGlobal).global->kind != GlobalKind::kDType)
          malformed("_rebuild_tensor_v3 without a dtype");
        return push_tensor(args, 7, args[6]->global->dtype);
      case GlobalKind::kRebuildParameter:
        if (args.empty()) malformed("_rebuild_parameter without a tensor");
        expect(args[0], Kind::kTensor);
        stack_.push_back(args[0]);
        return;
      case GlobalKind::kOpaque:
        push(Kind::kOpaque);
        return;
      default:
        fail(where(), "refused: a call of {}.{}", global.module, global.name);
    }
  }

  // (storage, offset, shape, strides, requires_grad, hooks[, dtype][, metadata])
  void push_tensor(const std::vector<Value*>& args, size_t num_required, std::optional<DType> dtype) {
    if (args.size() < num_required || args.size() > num_required + 1) malformed("a tensor of other arguments");
    if (args.size() > num_required && !expect(args.back(), Kind::kDict).items.empty())
      fail(where(), "a tensor with conjugate or negative bits is not supported");
    PickledTensor tensor;
    tensor.storage = storages_[static_cast<size_t>(expect(args[0], Kind::kStorage).number)];
    if (!dtype) dtype = tensor.storage.dtype;
    if (!dtype) malformed("an untyped storage without a dtype");
    tensor.dtype = *dtype;
    tensor.offset = expect(args[1], Kind::kInt).number;
    tensor.shape = extents(*args[2]);
    tensor.strides = extents(*args[3]);
    if (tensor.shape.size() != tensor.strides.size() || tensor.offset < 0)
      malformed("a tensor whose shape, strides and offset do not fit");
    if (tensors_.size() >= kMaxTensors) fail(where(), "the pickle has over {} tensors", kMaxTensors);
    tensors_.push_back(std::move(tensor));
    push(Kind::kTensor).number = static_cast<int64_t>(tensors_.size()) - 1;
  }

  std::vector<int64_t> extents(const Value& tuple) const {
    expect(&tuple, Kind::kTuple);
    if (tuple.items.size() > kMaxRank) malformed(fmt::format("a tensor of {} dimensions", tuple.items.size()));
    std::vector<int64_t> numbers;
    for (const Value* item : tuple.items) {
      numbers.push_back(expect(item, Kind::kInt).number);
      if (numbers.back() < 0) malformed("a negative extent or stride");
    }
    return numbers;
  }

  ByteReader reader_;
  std::deque<Value> arena_;
  std::vector<Value*> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint32_t, Value*> memo_;
  std::vector<PickledStorage> storages_;
  std::vector<PickledTensor> tensors_;
};

}  // namespace

std::vector<PickledTensor> unpickle_tensors(std::span<const std::byte> pickle, std::string_view where) {
  if (pickle.size() > kMaxPickleBytes)
    fail(where, "data.pkl has {} bytes, more than the limit of {}", pickle.size(), kMaxPickleBytes);
  return Unpickler(pickle, where).tensors();
}

}  // namespace puna::io
