#include "cli/golden_data.h"

#include <memory>
#include <optional>
#include <vector>

#include "base/error.h"
#include "base/suggest.h"
#include "io/safetensors.h"

namespace puna::cli {
namespace {

std::optional<at::ScalarType> scalar_type(DType dtype) {
  switch (dtype) {
    case DType::F32:
      return at::kFloat;
    case DType::F16:
      return at::kHalf;
    case DType::BF16:
      return at::kBFloat16;
    case DType::I32:
      return at::kInt;
    case DType::I64:
      return at::kLong;
    default:
      return std::nullopt;
  }
}

DType file_type(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return DType::F32;
    case at::kBFloat16:
      return DType::BF16;
    case at::kInt:
      return DType::I32;
    case at::kLong:
      return DType::I64;
    default:
      break;
  }
  PUNA_CHECK(false, "no file type for {}", c10::toString(type));
  return DType::F32;
}

}  // namespace

at::Tensor read_tensor(const io::TensorFile& file, const std::string& name, const std::string& where) {
  const io::TensorView* view = file.find(name);
  if (!view) {
    std::vector<std::string> names;
    for (const io::TensorView& tensor : file.tensors()) names.push_back(tensor.name);
    const std::string nearest = nearest_name(name, names);
    fail(where, "has no tensor '{}'{}", name, nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
  }
  const auto type = scalar_type(view->dtype);
  if (!type) fail(where, "tensor '{}' is {}; expected F32, F16, BF16, I32 or I64", name, dtype_name(view->dtype));
  at::Tensor tensor = at::empty(view->shape, *type);
  PUNA_CHECK(tensor.nbytes() == view->bytes.size(), "'{}' has {} bytes", name, view->bytes.size());
  if (!view->bytes.empty()) std::memcpy(tensor.mutable_data_ptr(), view->bytes.data(), view->bytes.size());
  return tensor;
}

void GoldenOutput::add(const std::string& name, const at::Tensor& tensor, bool keep_dtype) {
  at::Tensor value = tensor.detach().to(at::kCPU);
  if (value.is_floating_point() && !keep_dtype) value = value.to(at::kFloat);
  tensors_[name] = value.contiguous();
}

void GoldenOutput::write(const std::filesystem::path& path) const {
  std::vector<io::TensorView> views;
  for (const auto& [name, tensor] : tensors_) {
    const auto owner = std::make_shared<at::Tensor>(tensor);
    const auto* bytes = static_cast<const std::byte*>(tensor.const_data_ptr());
    views.push_back({name, file_type(tensor.scalar_type()), tensor.sizes().vec(), {bytes, tensor.nbytes()}, owner});
  }
  io::write_safetensors(path, views);
}

}  // namespace puna::cli
