// Golden files as tensors, small random models, and comparisons, for the model's tests.
#pragma once

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "arch/config.h"
#include "base/json.h"
#include "model/batch.h"
#include "model/kv_cache.h"
#include "model/model.h"

namespace puna::test {

using Tensors = std::map<std::string, at::Tensor>;

/// All tensors of a safetensors file, copied; BF16 and F16 as stored, integers as int64.
Tensors read_tensors(const std::filesystem::path& file);

/// Directories of `part` ("goldens", "training", ...) in every golden set that has it.
std::vector<std::filesystem::path> golden_directories(const std::string& part);

/// Success when the shapes are equal and max |a - b| <= atol; NaN is a failure.
testing::AssertionResult tensors_close(const at::Tensor& actual, const at::Tensor& expected, double atol);

/// A model of this configuration with random weights, always the same for the same seed. `edit` may change a row.
using EditRow = std::function<void(const arch::ParamRow&, at::Tensor&)>;
std::unique_ptr<model::Model> random_model(const arch::Llama4Config& config, uint64_t seed = 1,
                                           at::ScalarType dtype = at::kFloat, const EditRow& edit = {});

/// Four layers (the last without rope), chunks of 5, four experts of which one is used, with vision.
arch::Llama4Config small_config();

std::unique_ptr<model::Model> load_model(const std::filesystem::path& path, at::ScalarType dtype = at::kFloat);

/// Random token ids below `limit`.
at::Tensor random_ids(int64_t count, int64_t limit, uint64_t seed);

/// Logits of one sequence fed in pieces of the given sizes through a cache.
at::Tensor in_pieces(const model::Model& model, const at::Tensor& ids, const std::vector<int64_t>& sizes,
                     const at::Tensor& image_features = {});

/// Greedy continuation through a cache.
std::vector<int64_t> greedy(const model::Model& model, const at::Tensor& prompt, int64_t count,
                            const at::Tensor& image_features = {});

}  // namespace puna::test
