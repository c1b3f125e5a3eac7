// Property: whatever happens to a valid file's bytes, it opens or throws puna::Error, and what opens lies in the file.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <random>

#include "base/error.h"
#include "io/file.h"
#include "io/gguf.h"
#include "io/pth.h"
#include "io/safetensors.h"
#include "tests/io/builders.h"
#include "tests/support/golden.h"

namespace puna::io {
namespace {

using Parse = std::function<TensorFile(std::span<const std::byte>)>;

TensorFile parse_st(std::span<const std::byte> bytes) { return parse_safetensors(bytes, nullptr, "f"); }
TensorFile parse_gg(std::span<const std::byte> bytes) { return parse_gguf(bytes, nullptr, "f").tensors; }
TensorFile parse_pt(std::span<const std::byte> bytes) { return parse_pth(bytes, nullptr, "f"); }

// Reads every byte that the parser handed out, so that a sanitizer sees views beyond the buffer.
int64_t checksum(const TensorFile& file) {
  int64_t sum = 0;
  for (const TensorView& tensor : file.tensors())
    for (std::byte b : tensor.bytes) sum += std::to_integer<int>(b);
  return sum;
}

std::string mutated(const std::string& original, std::mt19937& random) {
  std::string image = original;
  const auto below = [&](size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random); };
  if (below(4) == 0) image.resize(below(image.size()));
  for (size_t flips = below(4) + 1; flips > 0 && !image.empty(); --flips) {
    const size_t at = below(image.size());
    switch (below(4)) {
      case 0:
        image[at] = static_cast<char>(image[at] ^ (1 << below(8)));
        break;
      case 1:
        image[at] = static_cast<char>(below(256));
        break;
      case 2:
        image.erase(at, below(9));
        break;
      default:
        std::memset(image.data() + at, below(2) ? 0xFF : 0, std::min(image.size() - at, below(9)));
        break;
    }
  }
  return image;
}

void expect_no_crash(const std::string& original, const Parse& parse) {
  ASSERT_NO_THROW(parse(test::as_bytes(original)));
  std::mt19937 random(1234);
  int num_errors = 0;
  for (int round = 0; round < 20'000; ++round) {
    const std::string image = mutated(original, random);
    try {
      ASSERT_GE(checksum(parse(test::as_bytes(image))), 0);
    } catch (const Error&) {
      ++num_errors;
    }
  }
  EXPECT_GT(num_errors, 1000);
}

std::string fixture(std::string_view name) {
  return read_file(std::filesystem::path(PUNA_SOURCE_DIR) / "tests/golden/io" / name, 1 << 20);
}

TEST(Mutation, Safetensors) {
  expect_no_crash(test::safetensors_image(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                          R"("b":{"dtype":"U8","shape":[4],"data_offsets":[8,12]}})",
                                          12),
                  parse_st);
}

TEST(Mutation, Gguf) {
  expect_no_crash(
      test::gguf_image({test::gguf_pair("general.architecture", 8, test::gguf_string("llama4")),
                        test::gguf_pair("list", 9, test::raw<uint32_t>(4) + test::raw<uint64_t>(1) + "1234"),
                        test::gguf_pair("general.alignment", 4, test::raw<uint32_t>(32))},
                       {test::gguf_tensor("a", {8, 1}, 0, 0), test::gguf_tensor("b", {32}, 8, 32)}, 66),
      parse_gg);
}

TEST(Mutation, PthByTorch) { expect_no_crash(fixture("tensors.pth"), parse_pt); }
TEST(Mutation, PthSmall) {
  expect_no_crash(test::pth_image(test::tensor_pickle("w", 6, 0, {3, 2}, {1, 3}), 24), parse_pt);
}

}  // namespace
}  // namespace puna::io
