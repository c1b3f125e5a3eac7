// Finding the table's tensors in a file: every missing, extra and mis-shaped one is remembered, then told in one Error.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "io/tensor_file.h"

namespace puna::checkpoint {

/// Names of problems of one kind: all are counted, the first few kept.
class ProblemList {
 public:
  void add(std::string text);
  int64_t count() const { return count_; }
  /// "3 missing: a, b, c"; empty when there are none.
  std::string text(std::string_view kind) const;

 private:
  int64_t count_ = 0;
  std::vector<std::string> first_;
};

/// Problems of all the files of one checkpoint.
struct Problems {
  ProblemList missing, extra, mismatched;

  /// Throws one Error naming `where` and all three lists, unless they are empty.
  void raise(std::string_view where, std::string_view remedy) const;
};

/// Takes tensors out of one file. `problems` outlives it.
class Binder {
 public:
  Binder(const io::TensorFile& file, Problems& problems, std::string prefix = "")
      : file_(file), problems_(problems), prefix_(std::move(prefix)) {}

  bool has(std::string_view name) const { return file_.find(name) != nullptr; }

  /// The tensor when it is there with this shape and one of these types; otherwise nullptr, and the problem is noted.
  const io::TensorView* take(const std::string& name, const std::vector<int64_t>& shape, std::span<const DType> dtypes);

  /// Marks a tensor as known and not needed.
  void ignore(const std::string& name) { used_.insert(name); }

  void note_missing(const std::string& name) { problems_.missing.add(prefix_ + name); }
  void note_mismatch(const std::string& name, const std::string& what) {
    problems_.mismatched.add(prefix_ + name + " " + what);
  }

  /// The stored shape of a tensor; nullopt when there is no such tensor.
  std::optional<std::vector<int64_t>> shape_of(const std::string& name) const;

  /// So much is missing that looking further tells nothing new.
  bool hopeless() const { return problems_.missing.count() > 10'000; }

  /// Notes every tensor that nobody took. Call it last.
  void note_extras();

 private:
  const io::TensorFile& file_;
  Problems& problems_;
  std::string prefix_;
  std::unordered_set<std::string> used_;
};

/// Plain floats that may be a dense weight.
std::span<const DType> dense_dtypes();

}  // namespace puna::checkpoint
