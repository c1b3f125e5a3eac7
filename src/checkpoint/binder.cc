#include "checkpoint/binder.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/error.h"
#include "io/text.h"

namespace puna::checkpoint {
namespace {
constexpr size_t kShown = 8;
constexpr size_t kMaxNameShown = 200;
}  // namespace

void ProblemList::add(std::string text) {
  ++count_;
  if (first_.size() < kShown) first_.push_back(text.substr(0, kMaxNameShown));
}

std::string ProblemList::text(std::string_view kind) const {
  if (!count_) return "";
  const int64_t hidden = count_ - static_cast<int64_t>(first_.size());
  return fmt::format("{} {}: {}{}", count_, kind, fmt::join(first_, ", "),
                     hidden ? fmt::format(" and {} more", hidden) : "");
}

void Problems::raise(std::string_view where, std::string_view remedy) const {
  std::vector<std::string> parts;
  for (auto& part : {missing.text("missing"), extra.text("not of this model"), mismatched.text("not as expected")})
    if (!part.empty()) parts.push_back(part);
  if (parts.empty()) return;
  fail(where, "the tensors do not fit the config: {}; {}", fmt::join(parts, "; "), remedy);
}

const io::TensorView* Binder::take(const std::string& name, const std::vector<int64_t>& shape,
                                   std::span<const DType> dtypes) {
  const io::TensorView* view = file_.find(name);
  if (!view) {
    note_missing(name);
    return nullptr;
  }
  used_.insert(name);
  if (view->shape != shape) {
    note_mismatch(name, fmt::format("has shape {}, expected {}", io::shape_text(view->shape), io::shape_text(shape)));
    return nullptr;
  }
  if (std::find(dtypes.begin(), dtypes.end(), view->dtype) == dtypes.end()) {
    std::vector<std::string_view> names;
    for (DType dtype : dtypes) names.push_back(dtype_name(dtype));
    note_mismatch(name, fmt::format("is {}, expected {}", dtype_name(view->dtype), fmt::join(names, " or ")));
    return nullptr;
  }
  return view;
}

std::optional<std::vector<int64_t>> Binder::shape_of(const std::string& name) const {
  const io::TensorView* view = file_.find(name);
  return view ? std::optional(view->shape) : std::nullopt;
}

void Binder::note_extras() {
  for (const auto& view : file_.tensors())
    if (!used_.contains(view.name)) problems_.extra.add(prefix_ + view.name);
}

std::span<const DType> dense_dtypes() {
  static constexpr std::array kDense = {DType::BF16, DType::F16, DType::F32, DType::F64};
  return kDense;
}

}  // namespace puna::checkpoint
