// Texts to vectors: the mean of the hidden states behind the final norm, over all tokens, at length 1.
#pragma once

#include <exception>
#include <functional>
#include <list>
#include <memory>
#include <vector>

#include "engine/loaded_model.h"
#include "model/kv_cache.h"

namespace puna::engine {

struct EmbeddingRequest {
  std::vector<std::vector<TokenId>> inputs;  // each of 1 token up to the model's context
  std::function<bool()> cancelled;           // asked between steps; may be empty
  /// Called once by the thread that steps: vectors [D] in the inputs' order, or what went wrong.
  std::function<void(std::vector<std::vector<float>>, std::exception_ptr)> on_done;
};

/// Throws Error for what could never run.
void check(const LoadedModel& loaded, const EmbeddingRequest& request);

/// Runs them piece by piece, so that answers under way go on between the pieces.
class Embedder {
 public:
  explicit Embedder(const LoadedModel& loaded) : loaded_(loaded) {}

  void add(EmbeddingRequest request);
  bool busy() const { return !jobs_.empty(); }
  /// At most so many rows, of inputs of one request; requests take turns between inputs. Those that nobody waits for
  /// any more end first. Returns how many rows it ran.
  int64_t step(int64_t rows);
  /// All that is left ends with an error.
  void give_up();

 private:
  struct Job {
    EmbeddingRequest request;
    size_t next = 0;                        // the first input that is not done
    int64_t done = 0;                       // tokens of it
    std::unique_ptr<model::KvCache> cache;  // of it
    at::Tensor sum_D;                       // FP32 [D], of it
    std::vector<std::vector<float>> vectors;
  };
  struct Piece {
    size_t input;
    int64_t begin, end;
  };
  void end(std::list<Job>::iterator job, std::exception_ptr error);
  int64_t run(Job& job, int64_t rows);
  void take(Job& job, const std::vector<Piece>& pieces, const at::Tensor& hidden_TD);

  const LoadedModel& loaded_;
  std::list<Job> jobs_;  // the first has its turn
};

}  // namespace puna::engine
