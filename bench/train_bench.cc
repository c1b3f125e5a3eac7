// Training steps for bench/train.py, which runs them beside transformers' and prints the table.
//   train_bench steps MODEL THREADS [f32|bf16]: for each line "N" on standard input, N steps; one line of JSON each
//   train_bench loss VOCABULARY TOKENS WIDTH: peak memory of the fused head and loss, one line of JSON
// A step is forward, loss, backward and AdamW on 8 sequences of 128 tokens. Tokens are those of the peer.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/memory.h"
#include "checkpoint/model_source.h"
#include "model/model.h"
#include "ops/linear_loss.h"
#include "ops/loss.h"

namespace {

using puna::model::Batch;

constexpr int64_t kSequences = 8, kLength = 128;

// High-water mark of the resident set since reset_peak().
int64_t peak_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) * 1024;
  puna::fail("train_bench", "/proc/self/status has no VmHWM");
}

void reset_peak() { std::ofstream("/proc/self/clear_refs") << "5"; }

class Tokens {
 public:
  explicit Tokens(int64_t vocabulary) : vocabulary_(vocabulary) {}
  at::Tensor next() {
    std::vector<int64_t> ids(kSequences * kLength);
    for (int64_t& id : ids) {
      state_ = (state_ * 1103515245 + 12345) % (int64_t{1} << 31);
      id = (state_ >> 16) % vocabulary_;
    }
    return at::tensor(ids, at::kLong);
  }

 private:
  int64_t vocabulary_, state_ = 1;
};

class Trainer {
 public:
  Trainer(const std::string& path, at::ScalarType dtype)
      : model_(puna::model::Model::load(*puna::checkpoint::open_model(path), {dtype, at::kCPU})),
        tokens_(model_->config().text.vocab_size) {
    for (auto& [name, weight] : model_->weights()) {
      weight.dense = weight.dense.clone().requires_grad_();
      weights_.push_back(weight.dense);
      means_.push_back(at::zeros_like(weights_.back()));
      squares_.push_back(at::zeros_like(weights_.back()));
      steps_.push_back(at::zeros({}, at::kFloat));
    }
  }

  int64_t state_bytes() const {
    int64_t sum = 0;
    for (const at::Tensor& w : weights_) sum += 4 * static_cast<int64_t>(w.nbytes());
    return sum;
  }

  // Loss, and seconds without making the tokens.
  std::pair<double, double> step() {
    const at::Tensor ids = tokens_.next();
    const auto start = std::chrono::steady_clock::now();
    Batch batch;
    batch.tokens = ids;
    batch.sequence_begin = {0};
    for (int64_t s = 0; s < kSequences; ++s) {
      batch.sequence_begin.push_back((s + 1) * kLength);
      batch.first_position.push_back(0);
    }
    at::Tensor targets = ids.roll(-1).view({kSequences, kLength}).clone();
    targets.select(1, kLength - 1).fill_(puna::ops::kIgnoredTarget);
    const at::Tensor x = model_->hidden(batch);
    const puna::ops::Weight& head = model_->weights().at("lm_head.weight");
    const at::Tensor log_probs = puna::ops::linear_log_probs(x, head, targets.flatten()).log_probs;
    const at::Tensor loss = log_probs.sum() / static_cast<double>(-kSequences * (kLength - 1));
    loss.backward();
    update();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return {loss.item<double>(), seconds};
  }

 private:
  void update() {
    std::vector<at::Tensor> values, gradients;
    for (const at::Tensor& w : weights_) {
      values.push_back(w.detach());
      gradients.push_back(w.grad());
    }
    for (const at::Tensor& s : steps_) s.add_(1);
    at::_fused_adamw_(values, gradients, means_, squares_, {}, steps_, 1e-3, 0.9, 0.999, 0.1, 1e-8, false, false);
    for (const at::Tensor& w : weights_) w.mutable_grad().reset();
  }

  std::unique_ptr<puna::model::Model> model_;
  Tokens tokens_;
  std::vector<at::Tensor> weights_, means_, squares_, steps_;
};

void run_steps(const std::string& path, int threads, bool bf16) {
  at::set_num_threads(threads);
  at::mm(at::ones({256, 256}), at::ones({256, 256}));  // the library's own pages, before memory is measured
  const int64_t before = puna::resident_memory_bytes();
  Trainer trainer(path, bf16 ? at::kBFloat16 : at::kFloat);
  reset_peak();
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<double> losses, seconds;
    for (int64_t i = 0; i < std::stoll(line); ++i) {
      const auto [loss, time] = trainer.step();
      losses.push_back(loss);
      seconds.push_back(time);
    }
    fmt::print("{{\"seconds\": [{}], \"loss\": {}, \"peak_bytes\": {}, \"before_bytes\": {}, \"state_bytes\": {}}}\n",
               fmt::join(seconds, ", "), losses.back(), peak_bytes(), before, trainer.state_bytes());
    std::fflush(stdout);
  }
}

void run_loss(int64_t V, int64_t T, int64_t D) {
  const puna::ops::Weight head = {"head", at::randn({V, D}).mul_(0.02).requires_grad_(), {}};
  const at::Tensor x = at::randn({T, D}).requires_grad_(), targets = at::randint(0, V, {T}, at::kLong);
  head.dense.mutable_grad() = at::zeros_like(head.dense);
  x.mutable_grad() = at::zeros_like(x);
  at::mm(at::ones({256, 256}), at::ones({256, 256}));
  const int64_t before = puna::resident_memory_bytes();
  reset_peak();
  const auto start = std::chrono::steady_clock::now();
  const at::Tensor loss = -puna::ops::linear_log_probs(x, head, targets).log_probs.mean();
  loss.backward();
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  // The gradients were there before; backward made others of the same size to add to them.
  const int64_t gradients = static_cast<int64_t>(head.dense.nbytes() + x.nbytes());
  fmt::print(
      "{{\"vocabulary\": {}, \"tokens\": {}, \"width\": {}, \"seconds\": {:.2f}, \"extra_bytes\": {}, "
      "\"naive_bytes\": {}, \"loss\": {:.6f}}}\n",
      V, T, D, seconds, peak_bytes() - before - gradients, 2 * V * T * 4, loss.item<double>());
}

int run(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  if (args.size() >= 3 && args[0] == "steps") {
    run_steps(args[1], std::stoi(args[2]), args.size() > 3 && args[3] == "bf16");
  } else if (args.size() == 4 && args[0] == "loss") {
    run_loss(std::stoll(args[1]), std::stoll(args[2]), std::stoll(args[3]));
  } else {
    throw puna::UsageError("train_bench", "usage: train_bench steps MODEL THREADS [f32|bf16], or loss V T D");
  }
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
