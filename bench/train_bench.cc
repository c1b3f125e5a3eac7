// Training steps for bench/train.py, which runs them beside transformers' and prints the table.
//   train_bench steps MODEL THREADS [f32|bf16]: for each line "N" on standard input, N steps; one line of JSON each
//   train_bench loss VOCABULARY TOKENS WIDTH: peak memory of the fused head and loss, one line of JSON
// A step is the trainer's own, on 8 sequences of 128 tokens. Tokens are those of the peer.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/memory.h"
#include "checkpoint/model_source.h"
#include "ops/linear_loss.h"
#include "parallel/comm.h"
#include "train/learner.h"

namespace {

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
  Trainer(const std::string& path, at::ScalarType dtype) {
    const auto source = puna::checkpoint::open_model(path);
    tokens_ = std::make_unique<Tokens>(source->config().text.vocab_size);
    std::map<std::string, at::Tensor> masters;
    for (const auto& row : source->rows()) {
      masters[row.name] = source->load(row, at::kFloat).clone();
      // Weight, gradient and two moments; bf16 computes with a copy.
      state_bytes_ += masters[row.name].numel() * (dtype == at::kBFloat16 ? 18 : 16);
    }
    learner_ = std::make_unique<puna::train::Learner>(std::move(masters), dtype, puna::parallel::self_comm());
    puna::train::StageConfig stage;
    stage.optimizer.beta2 = 0.999;
    stage.optimizer.clip_norm = 0;
    learner_->begin_stage(source->config(), stage, /*recompute=*/false);
  }

  int64_t state_bytes() const { return state_bytes_; }

  // Loss, and seconds without making the tokens.
  std::pair<double, double> step() {
    const puna::train::StepBatch batch = next_batch();
    const auto start = std::chrono::steady_clock::now();
    const double loss = learner_->step(batch, 1e-3, 1, ++steps_).loss;
    return {loss, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count()};
  }

 private:
  puna::train::StepBatch next_batch() {
    puna::train::StepBatch batch;
    puna::train::MicroBatch& micro = batch.micro.emplace_back();
    micro.tokens = tokens_->next();
    const at::Tensor rows = at::arange(kSequences * kLength, at::kLong).view({kSequences, kLength});
    micro.target_rows = rows.narrow(1, 0, kLength - 1).flatten();
    micro.targets = micro.tokens.view({kSequences, kLength}).narrow(1, 1, kLength - 1).flatten();
    micro.sequence_begin = {0};
    for (int64_t s = 0; s < kSequences; ++s) {
      micro.sequence_begin.push_back((s + 1) * kLength);
      for (int32_t t = 0; t + 1 < kLength; ++t) micro.target_position.push_back(t);
    }
    micro.target_source.resize(micro.target_position.size());
    batch.num_tokens = kSequences * kLength;
    batch.num_targets = micro.targets.size(0);
    return batch;
  }

  std::unique_ptr<Tokens> tokens_;
  std::unique_ptr<puna::train::Learner> learner_;
  int64_t state_bytes_ = 0, steps_ = 0;
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

// One forward and backward; what it takes at most beyond what is there when it begins, bytes.
int64_t loss_bytes(const puna::ops::Weight& head, const at::Tensor& x, const at::Tensor& targets, double& loss) {
  const int64_t before = puna::resident_memory_bytes();
  reset_peak();
  const at::Tensor mean = -puna::ops::linear_log_probs(x, head, targets).log_probs.mean();
  mean.backward();
  loss = mean.item<double>();
  return peak_bytes() - before;
}

void run_loss(int64_t V, int64_t T, int64_t D) {
  const puna::ops::Weight head = {"head", at::randn({V, D}).mul_(0.02).requires_grad_(), {}};
  const at::Tensor x = at::randn({T, D}).requires_grad_(), targets = at::randint(0, V, {T}, at::kLong);
  at::mm(at::ones({256, 256}), at::ones({256, 256}));
  double loss = 0;
  const auto start = std::chrono::steady_clock::now();
  // The first makes the gradients, the second adds to those that are there, and holds its own until it has.
  const int64_t gradients = static_cast<int64_t>(head.dense.nbytes() + x.nbytes());
  const int64_t first = loss_bytes(head, x, targets, loss) - gradients;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  const int64_t second = loss_bytes(head, x, targets, loss);
  fmt::print(
      "{{\"vocabulary\": {}, \"tokens\": {}, \"width\": {}, \"seconds\": {:.2f}, \"extra_bytes\": {}, "
      "\"adding_bytes\": {}, \"naive_bytes\": {}, \"loss\": {:.6f}}}\n",
      V, T, D, seconds, first, second, 2 * V * T * 4, loss);
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
