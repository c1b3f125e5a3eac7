#include "engine/compare.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/memory.h"
#include "checkpoint/scalar_type.h"
#include "engine/logits_store.h"

namespace puna::engine {
namespace {

// Rows whose FP32 logits take 32 MiB: their log-probabilities are computed at a time.
int64_t rows_at_once(int64_t vocab_size) { return std::max<int64_t>(1, (int64_t{8} << 20) / vocab_size); }

class Divergence {
 public:
  /// Both [n, V] in FP32.
  void add(const at::Tensor& reference, const at::Tensor& other) {
    const int64_t step = rows_at_once(reference.size(1));
    for (int64_t row = 0; row < reference.size(0); row += step) {
      const int64_t count = std::min(step, reference.size(0) - row);
      const at::Tensor a = at::log_softmax(reference.narrow(0, row, count), -1, at::kFloat);
      const at::Tensor b = at::log_softmax(other.narrow(0, row, count), -1, at::kFloat);
      const at::Tensor kl_T = (a.exp() * (a - b)).sum(-1, false, at::kDouble).clamp_min(0);
      agreed_ += at::eq(a.argmax(-1), b.argmax(-1)).sum().item<int64_t>();
      const double* kl = kl_T.const_data_ptr<double>();
      kl_.insert(kl_.end(), kl, kl + count);
    }
  }

  void finish(Comparison& out) {
    out.tokens = static_cast<int64_t>(kl_.size());
    double sum = 0;
    for (const double kl : kl_) sum += kl;
    out.mean_kl = sum / static_cast<double>(out.tokens);
    out.top1_agreement = static_cast<double>(agreed_) / static_cast<double>(out.tokens);
    const auto at = kl_.begin() + static_cast<int64_t>(0.99 * static_cast<double>(out.tokens - 1) + 0.5);
    std::nth_element(kl_.begin(), at, kl_.end());
    out.p99_kl = *at;
  }

 private:
  std::vector<double> kl_;
  int64_t agreed_ = 0;
};

int64_t context_of(const checkpoint::ModelSource& source, int64_t context) {
  const int64_t longest = source.config().text.max_position_embeddings;
  return longest > 0 ? std::min(context, longest) : context;
}

void check(const LoadOptions& options, const checkpoint::ModelSource& source, int64_t context) {
  if (!options.check_memory || !options.device.is_cpu()) return;
  const auto dtype = options.dtype.value_or(checkpoint::default_compute_type(source.config().dtype));
  check_memory(source, {dtype, options.device, options.weights}, context, available_memory_bytes(),
               options.model.string());
}

/// The context of both. Nothing is loaded when one of them cannot be.
int64_t check_both(const CompareOptions& options) {
  const auto a = checkpoint::open_model(options.reference.model), b = checkpoint::open_model(options.other.model);
  const int64_t context = context_of(*b, context_of(*a, options.context));
  if (a->config().text.vocab_size != b->config().text.vocab_size)
    fail(options.other.model.string(), "has a vocabulary of {}, {} one of {}; only models of one vocabulary compare",
         b->config().text.vocab_size, options.reference.model.string(), a->config().text.vocab_size);
  check(options.reference, *a, context);
  check(options.other, *b, context);
  return context;
}

}  // namespace

Json Comparison::json() const {
  return {{"tokens", tokens},
          {"mean_kl", mean_kl},
          {"p99_kl", p99_kl},
          {"top1_agreement", top1_agreement},
          {"reference_perplexity", reference.perplexity()},
          {"perplexity", other.perplexity()}};
}

std::optional<Comparison> compare(std::string_view text, const CompareOptions& options) {
  const c10::InferenceMode guard;
  PerplexityOptions scoring;
  scoring.context = check_both(options);
  scoring.cancel = options.cancel;
  int64_t before = 0;
  int64_t total = 0;
  if (options.on_progress) scoring.on_progress = [&](int64_t done) { options.on_progress(before + done, total); };

  Comparison result;
  internal::LogitsStore store(options.scratch, available_memory_bytes() / 4);
  std::vector<TokenId> tokens;
  {
    const LoadedModel reference = load_model(options.reference);
    tokens = reference.tokenizer->encode(text);
    total = 2 * static_cast<int64_t>(tokens.size());
    scoring.on_logits = [&](const at::Tensor& logits) { store.add(logits); };
    auto scored = perplexity(reference, tokens, scoring);
    if (!scored) return std::nullopt;
    result.reference = std::move(*scored);
  }
  before = result.reference.tokens;
  const LoadedModel other = load_model(options.other);
  if (other.tokenizer->encode(text) != tokens)
    fail(other.name, "its tokenizer cuts the text into other tokens than {}'s", options.reference.model.string());
  Divergence divergence;
  scoring.on_logits = [&](const at::Tensor& logits) {
    const at::Tensor kept = store.next();
    PUNA_CHECK(kept.defined() && kept.sizes() == logits.sizes(), "{} rows were kept otherwise", logits.size(0));
    divergence.add(kept, logits);
  };
  auto scored = perplexity(other, tokens, scoring);
  if (!scored) return std::nullopt;
  result.other = std::move(*scored);
  divergence.finish(result);
  return result;
}

}  // namespace puna::engine
