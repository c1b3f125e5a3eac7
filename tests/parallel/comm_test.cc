#include "parallel/comm.h"

#include <gtest/gtest.h>

namespace puna::parallel {
namespace {

TEST(SelfComm, IsAGroupOfOneWhoseSumIsItsOwn) {
  const auto comm = self_comm();
  EXPECT_EQ(comm->rank(), 0);
  EXPECT_EQ(comm->size(), 1);
  at::Tensor tensor = at::arange(6, at::kDouble);
  const void* before = tensor.const_data_ptr();
  comm->all_reduce_sum(tensor);
  EXPECT_TRUE(at::equal(tensor, at::arange(6, at::kDouble)));
  EXPECT_EQ(tensor.const_data_ptr(), before);
}

}  // namespace
}  // namespace puna::parallel
