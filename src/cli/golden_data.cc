#include "cli/golden_data.h"

#include <memory>
#include <vector>

#include "base/error.h"
#include "base/suggest.h"
#include "checkpoint/scalar_type.h"
#include "io/safetensors.h"

namespace puna::cli {
at::Tensor read_tensor(const io::TensorFile& file, const std::string& name, const std::string& where) {
  const io::TensorView* view = file.find(name);
  if (!view) {
    std::vector<std::string> names;
    for (const io::TensorView& tensor : file.tensors()) names.push_back(tensor.name);
    const std::string nearest = nearest_name(name, names);
    fail(where, "has no tensor '{}'{}", name, nearest.empty() ? "" : fmt::format("; did you mean '{}'?", nearest));
  }
  const auto type = checkpoint::scalar_type(view->dtype);
  if (!type)
    fail(where, "tensor '{}' is {}; expected plain numbers such as F32, BF16 or I32", name, dtype_name(view->dtype));
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
    views.push_back({name,
                     checkpoint::dtype_of(tensor.scalar_type()).value(),
                     tensor.sizes().vec(),
                     {bytes, tensor.nbytes()},
                     owner});
  }
  io::write_safetensors(path, views);
}

}  // namespace puna::cli
