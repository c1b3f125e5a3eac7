#include "engine/logits_store.h"

#include <gtest/gtest.h>

#include "tests/support/golden.h"

namespace puna::engine::internal {
namespace {

TEST(LogitsStore, GivesBackExactlyWhatItGotFromMemoryAndFile) {
  at::manual_seed(1);
  std::vector<at::Tensor> pieces;
  for (int i = 0; i < 6; ++i) {
    const at::Tensor wide = at::randn({3 + i, 50});
    pieces.push_back(i % 2 ? wide : wide.to(at::kBFloat16).to(at::kFloat));
  }
  const test::TemporaryDirectory dir;
  for (const int64_t memory : {int64_t{0}, int64_t{1500}, int64_t{1} << 30}) {
    LogitsStore store(dir.path(), memory);
    for (const at::Tensor& piece : pieces) store.add(piece);
    for (const at::Tensor& piece : pieces) EXPECT_TRUE(at::equal(store.next(), piece)) << memory;
    EXPECT_FALSE(store.next().defined());
  }
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

TEST(LogitsStore, KeepsNoReferenceToWhatItsCallerOverwrites) {
  LogitsStore store(".", 1 << 20);
  at::Tensor piece = at::rand({2, 3}), before = piece.clone();
  store.add(piece);
  piece.zero_();
  EXPECT_TRUE(at::equal(store.next(), before));
}

}  // namespace
}  // namespace puna::engine::internal
