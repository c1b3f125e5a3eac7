#include "model/step.h"

#include <algorithm>
#include <cmath>

#include "arch/rope_factors.h"
#include "base/error.h"
#include "model/kv_cache.h"
#include "ops/rope.h"

namespace puna::model {
namespace {

void check_shape(const Batch& batch) {
  const auto num_sequences = static_cast<int64_t>(batch.first_position.size());
  const auto& begin = batch.sequence_begin;
  PUNA_CHECK(batch.tokens.dim() == 1 && batch.tokens.scalar_type() == at::kLong, "tokens must be [T] int64");
  PUNA_CHECK(num_sequences > 0 && static_cast<int64_t>(begin.size()) == num_sequences + 1,
             "{} sequence bounds for {} sequences", begin.size(), num_sequences);
  PUNA_CHECK(begin.front() == 0 && begin.back() == batch.tokens.size(0) &&
                 std::ranges::adjacent_find(begin, std::greater_equal<>()) == begin.end(),
             "sequence bounds must rise from 0 to {}", batch.tokens.size(0));
  PUNA_CHECK(batch.caches.empty() || static_cast<int64_t>(batch.caches.size()) == num_sequences,
             "{} caches for {} sequences", batch.caches.size(), num_sequences);
  for (size_t i = 0; i < batch.caches.size(); ++i)
    PUNA_CHECK(batch.caches[i]->length() == batch.first_position[i],
               "sequence {} starts at position {}, its cache holds {}", i, batch.first_position[i],
               batch.caches[i]->length());
  PUNA_CHECK(
      batch.tables.size() == (batch.pages ? batch.first_position.size() : 0) && (!batch.pages || batch.caches.empty()),
      "{} page tables for {} sequences", batch.tables.size(), num_sequences);
  for (size_t i = 0; i < batch.tables.size(); ++i)
    PUNA_CHECK(batch.tables[i].length == batch.first_position[i], "sequence {} starts at position {}, its pages at {}",
               i, batch.first_position[i], batch.tables[i].length);
}

std::vector<int64_t> checked_ids(const Batch& batch, int64_t vocab_size) {
  const at::Tensor tokens = batch.tokens.cpu().contiguous();
  const int64_t* data = tokens.const_data_ptr<int64_t>();
  std::vector<int64_t> ids(data, data + tokens.numel());
  for (size_t i = 0; i < ids.size(); ++i)
    if (ids[i] < 0 || ids[i] >= vocab_size)
      fail("model", "token {} at row {} is outside the vocabulary of {}; do model and tokenizer belong together?",
           ids[i], i, vocab_size);
  return ids;
}

// A sequence's tokens, cut wherever a chunk ends; `chunk` 0 is no chunks.
std::vector<Span> cut(int64_t row, int64_t num_rows, int64_t position, int64_t chunk) {
  if (chunk == 0) return {{row, num_rows, position, 0}};
  std::vector<Span> spans;
  for (int64_t done = 0; done < num_rows;) {
    const int64_t first = position + done, start = first / chunk * chunk;
    const int64_t rows = std::min(num_rows - done, start + chunk - first);
    spans.push_back({row + done, rows, first, start});
    done += rows;
  }
  return spans;
}

at::Tensor temperatures_of(const std::vector<int64_t>& positions, const arch::TextConfig& config, at::Device device,
                           at::ScalarType dtype) {
  std::vector<double> values;
  bool all_one = true;
  for (const int64_t p : positions) {
    const double steps = std::floor(static_cast<double>(p + 1) / config.floor_scale);
    values.push_back(1 + config.attn_scale * std::log1p(steps));
    all_one = all_one && values.back() == 1;
  }
  if (all_one) return {};
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  return at::tensor(values, at::kDouble).to(wide).view({-1, 1, 1}).to(device);
}

}  // namespace

Batch Batch::single(at::Tensor tokens) {
  Batch batch;
  batch.sequence_begin = {0, tokens.size(0)};
  batch.first_position = {0};
  batch.tokens = std::move(tokens);
  return batch;
}

Step::Step(const Batch& the_batch, const arch::TextConfig& config, const std::vector<double>& frequencies,
           at::ScalarType dtype)
    : batch(the_batch) {
  check_shape(batch);
  num_tokens = batch.tokens.size(0);
  token_ids = checked_ids(batch, config.vocab_size);
  std::vector<int64_t> positions;
  positions.reserve(num_tokens);
  for (size_t i = 0; i < batch.first_position.size(); ++i) {
    const int64_t row = batch.sequence_begin[i], num_rows = batch.sequence_begin[i + 1] - row;
    const int64_t first = batch.first_position[i];
    for (int64_t t = 0; t < num_rows; ++t) positions.push_back(first + t);
    whole.push_back(cut(row, num_rows, first, 0));
    chunks.push_back(cut(row, num_rows, first, config.attention_chunk_size));
  }
  const at::Device device = batch.tokens.device();
  rotations = ops::rotations(positions, frequencies, device, dtype);
  temperatures = temperatures_of(positions, config, device, dtype);
}

std::vector<double> rope_frequencies(const arch::TextConfig& config) {
  const int64_t pairs = config.head_dim / 2;
  std::vector<double> divisors = config.rope_factors;
  if (divisors.empty() && config.rope_scaling)
    divisors = arch::factors_of_scaling(*config.rope_scaling, config.rope_theta, config.head_dim);
  if (divisors.empty()) divisors.assign(pairs, 1);
  PUNA_CHECK(static_cast<int64_t>(divisors.size()) == pairs, "{} rope factors for {} pairs", divisors.size(), pairs);
  std::vector<double> frequencies = ops::rope_frequencies(config.rope_theta, config.head_dim);
  for (int64_t j = 0; j < pairs; ++j) frequencies[j] = static_cast<float>(frequencies[j] / divisors[j]);
  return frequencies;
}

}  // namespace puna::model
