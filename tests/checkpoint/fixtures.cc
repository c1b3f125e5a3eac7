#include "tests/checkpoint/fixtures.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

#include "base/error.h"
#include "checkpoint/scalar_type.h"
#include "io/safetensors.h"
#include "tests/support/golden.h"

namespace puna::checkpoint::test {
namespace fs = std::filesystem;

EditableCheckpoint EditableCheckpoint::load(const std::string& golden) {
  const fs::path dir = puna::test::golden_data() / golden;
  return {read_json_file(dir / "config.json"), io::open_safetensors(dir / "model.safetensors").tensors()};
}

io::TensorView& EditableCheckpoint::at(const std::string& name) {
  for (auto& tensor : tensors)
    if (tensor.name == name) return tensor;
  throw std::runtime_error("no tensor " + name);
}

void EditableCheckpoint::remove(const std::string& name) {
  if (!std::erase_if(tensors, [&](const auto& tensor) { return tensor.name == name; }))
    throw std::runtime_error("no tensor " + name);
}

void EditableCheckpoint::add(const std::string& name, DType dtype, std::vector<int64_t> shape) {
  const int64_t bytes = *dtype_bytes(dtype, c10::multiply_integers(shape));
  auto owner = std::make_shared<std::vector<std::byte>>(bytes);
  tensors.push_back({name, dtype, std::move(shape), *owner, owner});
}

void EditableCheckpoint::write(const fs::path& dir) const {
  fs::create_directories(dir);
  std::ofstream(dir / "config.json") << config.dump();
  io::write_safetensors(dir / "model.safetensors", tensors);
}

bool run_script(const std::string& script, const std::vector<std::string>& arguments) {
  const fs::path root = PUNA_SOURCE_DIR;
  const fs::path python = root / ".venv/bin/python";
  constexpr int kNoPackage = 77;
  if (!fs::exists(python)) return false;
  // The wrapper tells a missing package from a broken script.
  constexpr const char* kWrapper =
      "import runpy, sys\ntry:\n  sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name=\"__main__\")\n"
      "except ModuleNotFoundError as e:\n  print(e); sys.exit(77)";
  std::string command =
      fmt::format("'{}' -c '{}' '{}'", python.string(), kWrapper, (root / "tests/checkpoint" / script).string());
  for (const auto& argument : arguments) command += fmt::format(" '{}'", argument);
  const int status = std::system(command.c_str());
  if (WEXITSTATUS(status) == kNoPackage) return false;
  EXPECT_EQ(status, 0) << command;
  return true;
}

at::Tensor read_float(const io::TensorFile& file, const std::string& name) {
  const auto* view = file.find(name);
  if (!view) throw std::runtime_error("no tensor " + name);
  at::Tensor stored = at::empty(view->shape, scalar_type(view->dtype).value());
  std::memcpy(stored.data_ptr(), view->bytes.data(), view->bytes.size());
  return stored.to(at::kFloat);
}

const arch::ParamRow& row_named(const ModelSource& model, const std::string& name) {
  for (const auto& row : model.rows())
    if (row.name == name) return row;
  throw std::runtime_error("no row " + name);
}

at::Tensor values_of_integers(const ModelSource& model, const arch::ParamRow& row) {
  const IntegerRow integers = model.integers(row).value();
  std::vector<at::Tensor> matrices;
  for (int64_t i = 0; i < integers.shapes.count(); ++i) {
    const auto& [n, k, format] = integers.shapes[i];
    const int64_t width = format.channel_scales ? k : format.group, groups = (k + width - 1) / width;
    const at::Tensor q = at::zeros({n, k}, at::kChar), scales = at::zeros({n, groups}, at::kFloat),
                     zeros = at::zeros({n, groups}, at::kChar);
    const auto spread = [width, k](const at::Tensor& t) { return t.repeat_interleave(width, 1).narrow(1, 0, k); };
    // In two reads, whose border lies within a stored tensor or between two.
    for (const auto& [begin, end] : {std::pair(int64_t{0}, n / 2), std::pair(n / 2, n)})
      model.read_integers(row, i, begin, end,
                          {q.mutable_data_ptr<int8_t>() + begin * k, scales.mutable_data_ptr<float>() + begin * groups,
                           format.zeros ? zeros.mutable_data_ptr<int8_t>() + begin * groups : nullptr});
    const at::Tensor numbers = format.floats ? q.view(at::kFloat8_e4m3fn) : q;
    const at::Tensor values = (numbers.to(at::kFloat) - spread(zeros).to(at::kFloat)) * spread(scales);
    matrices.push_back(row.shape.size() == 3 ? values.t() : values);
  }
  return row.shape.size() == 3 ? at::stack(matrices) : matrices[0];
}

void expect_same_rows(const ModelSource& actual, const ModelSource& expected) {
  ASSERT_EQ(actual.rows().size(), expected.rows().size());
  for (const auto& row : expected.rows()) {
    const at::Tensor want = expected.load(row, at::kFloat);
    at::Tensor have = actual.load(row_named(actual, row.name), at::kFloat);
    if (row.kind == arch::ParamKind::kEmbedding || row.kind == arch::ParamKind::kHead)
      have = have.narrow(0, 0, std::min(have.size(0), want.size(0)));
    ASSERT_EQ(have.sizes(), want.sizes()) << row.name;
    EXPECT_TRUE(at::equal(have, want)) << row.name << ": " << (have - want).abs().max().item<float>();
  }
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace puna::checkpoint::test
