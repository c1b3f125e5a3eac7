// Checkpoints made for tests: golden ones changed on the way, and ones written by Python scripts.
#pragma once

#include <ATen/ATen.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "base/json.h"
#include "checkpoint/model_source.h"
#include "io/tensor_file.h"

namespace puna::checkpoint::test {

/// A checkpoint in memory: change it, then write it to a directory.
struct EditableCheckpoint {
  Json config;
  std::vector<io::TensorView> tensors;

  /// One of the repository's golden checkpoints: "ckpt/d_text".
  static EditableCheckpoint load(const std::string& golden);

  io::TensorView& at(const std::string& name);
  void remove(const std::string& name);
  /// A tensor of zeros.
  void add(const std::string& name, DType dtype, std::vector<int64_t> shape);
  void write(const std::filesystem::path& dir) const;
};

/// Runs tests/checkpoint/<script> with the Python of .venv. False when there is no such Python or a package is missing;
/// any other failure fails the test.
bool run_script(const std::string& script, const std::vector<std::string>& arguments);

/// The tensor of a safetensors file as FP32.
at::Tensor read_float(const io::TensorFile& file, const std::string& name);

const arch::ParamRow& row_named(const ModelSource& model, const std::string& name);

/// A row that is stored as integers, put together from them: as load() gives it in FP32.
at::Tensor values_of_integers(const ModelSource& model, const arch::ParamRow& row);

/// All rows of both as FP32, bit for bit; `actual` may have more tokens in its vocabulary.
void expect_same_rows(const ModelSource& actual, const ModelSource& expected);

/// The message of the Error that `action` throws; empty when it throws none.
std::string error_of(const std::function<void()>& action);

}  // namespace puna::checkpoint::test
