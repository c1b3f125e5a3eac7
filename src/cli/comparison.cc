#include "cli/comparison.h"

#include "base/interrupt.h"
#include "base/progress.h"
#include "io/file.h"

#include <fmt/format.h>

namespace puna::cli {

engine::Comparison compare_on(const std::string& text_file, engine::CompareOptions options) {
  constexpr int64_t kMaxTextBytes = int64_t{1} << 30;
  const std::string text = io::read_file(text_file, kMaxTextBytes);
  std::unique_ptr<Progress> progress;
  options.on_progress = [&](int64_t done, int64_t total) {
    if (!progress) progress = std::make_unique<Progress>("Comparing", total);
    progress->set(done);
  };
  auto comparison = engine::compare(text, options);
  if (!comparison) throw Interrupted();
  return std::move(*comparison);
}

std::string comparison_text(const engine::Comparison& comparison) {
  return fmt::format(
      "{:<32} {:>12}\n{:<32} {:>12.4f}\n{:<32} {:>12.4f}\n{:<32} {:>12.6f}\n{:<32} {:>12.6f}\n{:<32} {:>11.3f}%\n",
      "tokens compared", comparison.tokens, "perplexity of the original", comparison.reference.perplexity(),
      "perplexity of the other", comparison.other.perplexity(), "KL divergence, mean", comparison.mean_kl,
      "KL divergence, 99th percentile", comparison.p99_kl, "same most likely token", 100 * comparison.top1_agreement);
}

}  // namespace puna::cli
