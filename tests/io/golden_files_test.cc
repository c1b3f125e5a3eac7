// The golden sets' files: all of them open, and a few values equal what Python's libraries read from them.
#include <gtest/gtest.h>

#include <cstring>

#include "base/error.h"
#include "base/json.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "tests/support/golden.h"

namespace puna::io {
namespace {

namespace fs = std::filesystem;

TEST(GoldenFiles, EveryFileOfEverySetOpens) {
  int num_opened = 0;
  for (const fs::path& set : test::golden_sets()) {
    for (const auto& entry : fs::recursive_directory_iterator(set)) {
      const std::string name = entry.path().filename().string();
      SCOPED_TRACE(entry.path());
      if (name.ends_with(".safetensors.index.json")) {
        const Json index = read_json_file(entry.path());
        EXPECT_EQ(open_safetensors_index(entry.path()).tensors().size(), index["weight_map"].size());
      } else if (name.ends_with(".safetensors")) {
        EXPECT_FALSE(open_safetensors(entry.path()).tensors().empty());
      } else if (name.ends_with(".gguf")) {
        const GgufFile file = open_gguf(entry.path());
        EXPECT_EQ(file.metadata.at("general.architecture"), "llama4");
        EXPECT_FALSE(file.tensors.tensors().empty());
      } else {
        continue;
      }
      ++num_opened;
    }
  }
  EXPECT_GE(num_opened, 20);
}

// tests/golden/io/expected.json: written by make_expected.py with the safetensors and gguf libraries.
TEST(GoldenFiles, ValuesEqualThoseOfTheReferenceLibraries) {
  const Json expected = read_json_file(fs::path(PUNA_SOURCE_DIR) / "tests/golden/io/expected.json");
  ASSERT_GE(expected.size(), 10u);
  for (const Json& row : expected) {
    const fs::path path = test::golden_data() / row.at("file").get<std::string>();
    const std::string name = row.at("tensor");
    SCOPED_TRACE(path.string() + " " + name);
    TensorFile file;
    if (path.extension() == ".gguf")
      file = open_gguf(path).tensors;
    else if (path.extension() == ".json")
      file = open_safetensors_index(path);
    else
      file = open_safetensors(path);
    EXPECT_EQ(static_cast<int>(file.tensors().size()), row.at("num_tensors"));
    const TensorView* tensor = file.find(name);
    ASSERT_NE(tensor, nullptr);
    EXPECT_EQ(dtype_name(tensor->dtype), row.at("dtype").get<std::string>());
    EXPECT_EQ(Json(tensor->shape), row.at("shape"));
    uint64_t sum = 0;  // position-weighted, modulo 2^64
    for (size_t i = 0; i < tensor->bytes.size(); ++i) sum += (i + 1) * std::to_integer<uint64_t>(tensor->bytes[i]);
    EXPECT_EQ(sum, row.at("checksum").get<uint64_t>());
  }
}

}  // namespace
}  // namespace puna::io
