#include "engine/sequence.h"

#include <algorithm>
#include <limits>

#include "arch/counts.h"
#include "base/error.h"
#include "engine/threads.h"

namespace puna::engine {
namespace {

at::Tensor to_tokens(std::span<const TokenId> tokens, at::Device device) {
  at::Tensor ids = at::empty({static_cast<int64_t>(tokens.size())}, at::kLong);
  std::copy(tokens.begin(), tokens.end(), ids.mutable_data_ptr<int64_t>());
  return ids.to(device);
}

}  // namespace

Sequence::Sequence(const LoadedModel& loaded)
    : loaded_(loaded), flops_per_token_(arch::flops_per_token(loaded.config(), 1)) {
  const int64_t longest = loaded.config().text.max_position_embeddings;
  limit_ = longest > 0 ? longest : std::numeric_limits<int64_t>::max();
  reset();
}

void Sequence::reset() {
  const c10::InferenceMode guard;
  cache_ = std::make_unique<model::KvCache>(loaded_.config().text, loaded_.dtype, loaded_.device);
  keys_.clear();
}

// Cuts the cache to what it shares with `wanted`, at most the tokens before the first whose logits are needed. Chunked
// layers keep the current chunk alone, so a cut before its start is a cut to nothing.
int64_t Sequence::reuse(const std::vector<uint64_t>& wanted, int64_t at_most) {
  const auto [mine, theirs] = std::mismatch(keys_.begin(), keys_.end(), wanted.begin(), wanted.end());
  int64_t common = std::min<int64_t>(mine - keys_.begin(), at_most);
  if (common < length()) {
    if (common < cache_->earliest_length()) common = 0;
    cache_->truncate(common);
    keys_.resize(static_cast<size_t>(common));
  }
  return common;
}

// Logits of the rows from `first_row` on.
at::Tensor Sequence::forward(std::span<const TokenId> tokens, const at::Tensor& features, int64_t first_row) {
  const auto count = static_cast<int64_t>(tokens.size());
  use_threads_for(flops_per_token_ * static_cast<double>(count));
  model::Batch batch;
  batch.tokens = to_tokens(tokens, loaded_.device);
  batch.sequence_begin = {0, count};
  batch.first_position = {length()};
  batch.caches = {cache_.get()};
  batch.image_features = features;
  if (first_row > 0) batch.output_rows = at::arange(first_row, count, batch.tokens.options());
  try {
    return loaded_.model->forward(batch).to(at::kCPU, at::kFloat).contiguous();
  } catch (...) {
    reset();  // layers may differ in length now
    throw;
  }
}

std::optional<std::span<const float>> Sequence::prefill(const Prompt& prompt, const PrefillOptions& options) {
  const c10::InferenceMode guard;
  const auto total = static_cast<int64_t>(prompt.tokens.size());
  PUNA_CHECK(total > 0, "an empty prompt");
  if (total > limit_)
    fail(loaded_.name, "the prompt has {} tokens and the model's context is {}; shorten the prompt", total, limit_);
  const std::vector<uint64_t> wanted = content_keys(loaded_, prompt);
  const int64_t wanted_from = options.logits_from >= 0 ? options.logits_from : total;
  reused_ = reuse(wanted, std::min(wanted_from, total - 1));
  const auto patch = static_cast<TokenId>(loaded_.config().image_token_id);
  const auto patches = [&](int64_t from, int64_t to) {
    return prompt.features.defined() ? std::count(prompt.tokens.begin() + from, prompt.tokens.begin() + to, patch) : 0;
  };
  int64_t feature_row = patches(0, reused_);
  at::Tensor logits;
  for (int64_t at = reused_; at < total;) {
    if (options.cancel && *options.cancel) return std::nullopt;
    const int64_t count = std::min(options.piece_tokens, total - at);
    const int64_t rows = patches(at, at + count);
    at::Tensor features = rows > 0 ? prompt.features.narrow(0, feature_row, rows) : at::Tensor();
    const int64_t first_row = std::clamp<int64_t>(wanted_from - at, 0, count - 1);
    logits = forward(std::span(prompt.tokens).subspan(static_cast<size_t>(at), static_cast<size_t>(count)), features,
                     first_row);
    keys_.insert(keys_.end(), wanted.begin() + at, wanted.begin() + at + count);
    if (options.on_logits && wanted_from < at + count) options.on_logits(at + first_row, logits);
    at += count;
    feature_row += rows;
    if (options.on_progress) options.on_progress(at - reused_, total - reused_);
  }
  logits_ = logits[-1];
  return std::span(logits_.const_data_ptr<float>(), static_cast<size_t>(logits_.numel()));
}

std::span<const float> Sequence::step(TokenId id) {
  const c10::InferenceMode guard;
  PUNA_CHECK(!full(), "the context of {} tokens is full", limit_);
  logits_ = forward(std::span(&id, 1), {}, 0)[0];
  keys_.push_back(static_cast<uint64_t>(id));
  return std::span(logits_.const_data_ptr<float>(), static_cast<size_t>(logits_.numel()));
}

}  // namespace puna::engine
