#include "engine/embedding.h"

#include <algorithm>

#include "arch/counts.h"
#include "base/error.h"
#include "engine/threads.h"

namespace puna::engine {

void check(const LoadedModel& loaded, const EmbeddingRequest& request) {
  const arch::TextConfig& config = loaded.config().text;
  if (request.inputs.empty()) fail("embedding", "there is no input");
  for (const auto& tokens : request.inputs) {
    const int64_t longest = config.max_position_embeddings;
    if (tokens.empty()) fail("embedding", "an input is empty; give at least one token");
    if (longest > 0 && std::ssize(tokens) > longest)
      fail("embedding", "an input has {} tokens and the model's context is {}; shorten it", tokens.size(), longest);
    for (const TokenId id : tokens)
      if (id < 0 || id >= config.vocab_size)
        fail("embedding", "token {} is outside the vocabulary of {}", id, config.vocab_size);
  }
}

void Embedder::add(EmbeddingRequest request) {
  jobs_.emplace_back();
  jobs_.back().request = std::move(request);
}

void Embedder::end(std::list<Job>::iterator job, std::exception_ptr error) {
  Job ended = std::move(*job);
  jobs_.erase(job);
  ended.request.on_done(error ? std::vector<std::vector<float>>() : std::move(ended.vectors), error);
}

int64_t Embedder::step(int64_t rows) {
  for (auto job = jobs_.begin(); job != jobs_.end();) {
    const auto next = std::next(job);
    if (job->request.cancelled && job->request.cancelled())
      end(job, std::make_exception_ptr(Error("embedding", "was cancelled")));
    job = next;
  }
  if (jobs_.empty()) return 0;
  Job& job = jobs_.front();
  int64_t done = 0;
  std::exception_ptr error;
  try {
    done = run(job, rows);
  } catch (...) {
    error = std::current_exception();
  }
  if (!error && job.next < job.request.inputs.size()) {
    // Not within an input: one at a time has keys and values.
    if (job.done == 0) jobs_.splice(jobs_.end(), jobs_, jobs_.begin());
    return done;
  }
  end(jobs_.begin(), error);
  return done;
}

int64_t Embedder::run(Job& job, int64_t rows) {
  const c10::InferenceMode guard;
  const auto& inputs = job.request.inputs;
  std::vector<Piece> pieces;
  std::vector<int64_t> tokens;
  model::Batch batch;
  batch.sequence_begin = {0};
  // The first may have begun before and the last go on later; those between are whole.
  std::vector<std::unique_ptr<model::KvCache>> caches;
  for (size_t i = job.next; i < inputs.size() && std::ssize(tokens) < rows; ++i) {
    const int64_t begin = i == job.next ? job.done : 0;
    const int64_t end = std::min(std::ssize(inputs[i]), begin + rows - std::ssize(tokens));
    // Where others wait their turn comes between inputs.
    if (jobs_.size() > 1 && i > job.next && end < std::ssize(inputs[i])) break;
    tokens.insert(tokens.end(), inputs[i].begin() + begin, inputs[i].begin() + end);
    pieces.push_back({i, begin, end});
    caches.push_back(begin > 0
                         ? std::move(job.cache)
                         : std::make_unique<model::KvCache>(loaded_.config().text, loaded_.dtype, loaded_.device));
    batch.sequence_begin.push_back(std::ssize(tokens));
    batch.first_position.push_back(begin);
    batch.caches.push_back(caches.back().get());
  }
  batch.tokens = at::tensor(tokens, at::kLong).to(loaded_.device);
  use_threads_for(arch::flops_per_token(loaded_.config(), 1) * static_cast<double>(tokens.size()));
  take(job, pieces, loaded_.model->hidden(batch));
  if (job.done > 0) job.cache = std::move(caches.back());
  return std::ssize(tokens);
}

void Embedder::take(Job& job, const std::vector<Piece>& pieces, const at::Tensor& hidden_TD) {
  int64_t row = 0;
  for (const Piece& piece : pieces) {
    const int64_t count = piece.end - piece.begin;
    const at::Tensor sum_D = hidden_TD.narrow(0, row, count).to(at::kCPU, at::kFloat).sum(0);
    row += count;
    job.sum_D = piece.begin > 0 ? job.sum_D + sum_D : sum_D;
    job.next = piece.input;
    job.done = piece.end;
    if (piece.end < std::ssize(job.request.inputs[piece.input])) continue;
    // At length 1 the mean is the sum.
    const at::Tensor vector_D = (job.sum_D / job.sum_D.norm().clamp_min(1e-12)).contiguous();
    const float* values = vector_D.const_data_ptr<float>();
    job.vectors.emplace_back(values, values + vector_D.numel());
    job.next = piece.input + 1;
    job.done = 0;
  }
}

void Embedder::give_up() {
  while (busy()) end(jobs_.begin(), std::make_exception_ptr(Error("embedding", "the engine stops")));
}

}  // namespace puna::engine
