#include "ops/loss.h"

#include "base/error.h"

namespace puna::ops {

at::Tensor cross_entropy(const at::Tensor& logits, const at::Tensor& targets) {
  PUNA_CHECK(logits.dim() == 2 && targets.dim() == 1 && logits.size(0) == targets.size(0),
             "cross entropy: {} rows of logits, {} targets", logits.size(0), targets.size(0));
  if ((targets == kIgnoredTarget).all().item<bool>())
    fail("loss", "all {} targets are ignored; nothing to average", targets.size(0));
  const at::Tensor wide = logits.scalar_type() == at::kDouble ? logits : logits.to(at::kFloat);
  return at::cross_entropy_loss(wide, targets, {}, at::Reduction::Mean, kIgnoredTarget);
}

at::Tensor shifted_targets(const at::Tensor& labels) {
  const at::Tensor end = at::full({1}, kIgnoredTarget, labels.options());
  return at::cat({labels.narrow(0, 1, labels.size(0) - 1), end});
}

}  // namespace puna::ops
