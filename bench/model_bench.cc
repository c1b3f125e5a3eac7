// Tokens per second of prefill and decode, one line of JSON: model_bench MODEL [prompt tokens] [f32|bf16] [threads].
// bench/peers/prefill_transformers.py runs it beside transformers and prints the ratio.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "base/error.h"
#include "checkpoint/model_source.h"
#include "model/kv_cache.h"
#include "model/model.h"

namespace {

double median_seconds(int repeats, const auto& run) {
  std::vector<double> seconds;
  for (int i = 0; i <= repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    run();
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  seconds.erase(seconds.begin());  // warms up
  std::ranges::sort(seconds);
  return seconds[seconds.size() / 2];
}

int run(int argc, char** argv) {
  if (argc < 2) throw puna::UsageError("model_bench", "usage: model_bench MODEL [prompt tokens] [f32|bf16] [threads]");
  const int64_t prompt = argc > 2 ? std::stoll(argv[2]) : 512;
  const bool bf16 = argc <= 3 || std::string(argv[3]) == "bf16";
  if (argc > 4) at::set_num_threads(std::stoi(argv[4]));
  const at::ScalarType dtype = bf16 ? at::kBFloat16 : at::kFloat;
  const auto model = puna::model::Model::load(*puna::checkpoint::open_model(argv[1]), {dtype, at::kCPU});
  const puna::arch::TextConfig& config = model->config().text;
  const at::Tensor ids = at::arange(prompt, at::kLong).remainder(config.vocab_size / 2);

  const double prefill = median_seconds(9, [&] { model->forward(puna::model::Batch::single(ids)); });
  puna::model::KvCache cache(config, dtype, at::kCPU);
  const auto step = [&](const at::Tensor& tokens) {
    puna::model::Batch batch = puna::model::Batch::single(tokens);
    batch.first_position = {cache.length()};
    batch.caches = {&cache};
    batch.output_rows = at::full({1}, tokens.size(0) - 1, at::kLong);
    return model->forward(batch);
  };
  step(ids);
  constexpr int kSteps = 64;
  const double decode = median_seconds(5, [&] {
    for (int i = 0; i < kSteps; ++i) step(ids.narrow(0, i % prompt, 1));
  });
  fmt::print(
      "{{\"prompt_tokens\": {}, \"dtype\": \"{}\", \"threads\": {}, \"prefill_tokens_per_s\": {:.1f}, "
      "\"decode_tokens_per_s\": {:.1f}}}\n",
      prompt, bf16 ? "bf16" : "f32", at::get_num_threads(), static_cast<double>(prompt) / prefill, kSteps / decode);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
