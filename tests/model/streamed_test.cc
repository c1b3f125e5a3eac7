// Packed files: the same logits, bit for bit, as the model that they were packed from, whether all of it is mapped or
// the experts are read when they are needed; hostile files.
#include <c10/core/GradMode.h>
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "checkpoint/packed_file.h"
#include "io/safetensors.h"
#include "tests/model/support.h"
#include "tests/support/golden.h"

namespace puna::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

/// Golden models stored as INT4 with routed experts.
std::vector<fs::path> models() {
  std::vector<fs::path> found;
  for (const auto& dir : golden_directories("quant"))
    if (checkpoint::open_model(dir)->format().find("INT4") != std::string::npos) found.push_back(dir);
  EXPECT_GE(found.size(), 2u);
  return found;
}

fs::path packed(const fs::path& dir, const fs::path& out) {
  checkpoint::write_packed(dir, *checkpoint::open_model(dir), out, 2, nullptr);
  return out;
}

/// A model whose experts have 4, 2 and 3 bits in turn: of each integer the upper bits are left.
class MixedExperts final : public checkpoint::ModelSource {
 public:
  explicit MixedExperts(const fs::path& dir) : whole_(checkpoint::open_model(dir)) {
    config_ = whole_->config(), rows_ = whole_->rows();
  }
  std::string format() const override { return "mixed"; }
  int64_t stored_bytes() const override { return whole_->stored_bytes(); }
  bool is_zero_copy(const arch::ParamRow&, at::ScalarType) const override { return false; }
  at::Tensor load(const arch::ParamRow& row, at::ScalarType dtype) const override { return whole_->load(row, dtype); }
  std::optional<checkpoint::IntegerRow> integers(const arch::ParamRow& row) const override {
    auto integers = whole_->integers(row);
    for (int64_t i = 0; integers && row.shape.size() == 3 && i < row.shape[0]; ++i)
      integers->shapes.formats[static_cast<size_t>(i)].bits -= fewer(i);
    return integers;
  }
  void read_integers(const arch::ParamRow& row, int64_t matrix, int64_t begin, int64_t end,
                     const checkpoint::IntegerBlock& out) const override {
    whole_->read_integers(row, matrix, begin, end, out);
    if (row.shape.size() != 3) return;
    const auto& [n, k, format] = whole_->integers(row)->shapes[matrix];
    const int64_t groups = (end - begin) * (format.channel_scales ? 1 : kernels::packed_layout({n, k, format}).blocks);
    std::for_each_n(out.q, (end - begin) * k, [&](int8_t& q) { q = static_cast<int8_t>(q >> fewer(matrix)); });
    std::for_each_n(out.scales, groups, [&](float& scale) { scale *= static_cast<float>(1 << fewer(matrix)); });
    if (out.zeros)
      std::for_each_n(out.zeros, groups, [&](int8_t& zero) { zero = static_cast<int8_t>(zero >> fewer(matrix)); });
  }

 private:
  static int fewer(int64_t matrix) { return matrix % 3 == 0 ? 0 : 3 - static_cast<int>(matrix % 3); }

  std::unique_ptr<checkpoint::ModelSource> whole_;
};

std::unique_ptr<model::Model> load(const fs::path& dir, int64_t expert_bytes = 0, at::ScalarType dtype = at::kFloat) {
  return model::Model::load(*checkpoint::open_model(dir),
                            {.dtype = dtype, .device = at::kCPU, .expert_bytes = expert_bytes});
}

at::Tensor logits_of(const model::Model& model, const fs::path& dir) {
  return model.forward(model::Batch::single(read_tensors(dir / "golden.safetensors").at("ids.40")));
}

at::Tensor random_logits(const model::Model& model) {
  return model.forward(model::Batch::single(random_ids(40, 90, 3)));
}

/// The bytes of an expert, and of all of them; 0 without packed experts.
std::pair<int64_t, int64_t> expert_bytes(const fs::path& dir) {
  const auto source = checkpoint::open_model(dir);
  std::pair<int64_t, int64_t> bytes;
  for (const arch::ParamRow& row : source->rows()) {
    const checkpoint::PackedRow* packed = row.shape.size() == 3 ? source->packed(row) : nullptr;
    if (packed == nullptr || packed->places[0].offset != 0) continue;
    for (const auto& place : packed->places) {
      bytes.first = std::max(bytes.first, place.block_bytes);
      bytes.second += place.block_bytes;
    }
  }
  return bytes;
}

TEST(PackedFile, GivesTheBitsOfTheModelThatItWasPackedFrom) {
  for (const fs::path& dir : models()) {
    const TemporaryDirectory out;
    const fs::path to = packed(dir, out.path() / "p");
    EXPECT_TRUE(logits_of(*load(to), dir).equal(logits_of(*load(dir), dir))) << dir;
  }
}

TEST(PackedFile, ExpertsThatStayThereGiveTheSameBits) {
  int streamed = 0;
  for (const fs::path& dir : models()) {
    const TemporaryDirectory out;
    const fs::path to = packed(dir, out.path() / "p");
    const auto [block, all] = expert_bytes(to);
    if (block == 0) continue;
    ++streamed;
    const at::Tensor expected = logits_of(*load(dir), dir);
    for (const int64_t budget : {2 * block, 3 * block, all}) {
      const auto model = load(to, budget);
      ASSERT_NE(model->expert_store(), nullptr);
      for (int i = 0; i < 3; ++i) EXPECT_TRUE(logits_of(*model, dir).equal(expected)) << dir << " " << budget;
      const experts::StoreStatistics statistics = model->expert_store()->statistics();
      EXPECT_GT(statistics.uses, 0);
      EXPECT_GT(statistics.predicted, 0);
      if (budget == all) {
        EXPECT_LE(statistics.bytes_read, all);
      }
    }
  }
  EXPECT_GT(streamed, 0);
}

TEST(PackedFile, HoldsFloatsForBf16AndGivesTheirValuesInFp32) {
  const std::string linear = "model.layers.0.self_attn.q_proj.weight", experts = "feed_forward.experts.down_proj";
  for (const char* name : {"ckpt/a_scout", "quant/fp8_ct_b"}) {
    SCOPED_TRACE(name);
    const fs::path dir = golden_data() / name;
    const TemporaryDirectory out;
    const fs::path to = packed(dir, out.path() / "p");
    const auto [block, all] = expert_bytes(to);
    ASSERT_GT(block, 0);
    const at::Tensor expected = random_logits(*load(dir, 0, at::kBFloat16));
    EXPECT_TRUE(random_logits(*load(to, 0, at::kBFloat16)).equal(expected));
    EXPECT_TRUE(random_logits(*load(to, 2 * block, at::kBFloat16)).equal(expected));
    // In FP32 linears are unpacked, and experts are the same in memory and in the file.
    const auto wide = load(to), original = load(dir);
    EXPECT_TRUE(wide->weights().at(linear).dense.equal(original->weights().at(linear).dense));
    EXPECT_TRUE(random_logits(*load(to, 2 * block)).equal(random_logits(*wide)));
    const auto source = checkpoint::open_model(to), plain = checkpoint::open_model(dir);
    for (const arch::ParamRow& row : source->rows()) {
      EXPECT_TRUE(source->load(row, at::kFloat).equal(plain->load(row, at::kFloat))) << row.name;
      EXPECT_TRUE(source->packed(row) || !row.name.ends_with(experts)) << row.name;
    }
  }
}

TEST(PackedFile, ExpertsOfSeveralFormatsGiveTheSameBitsMappedAndStreamed) {
  int mixed = 0;
  for (const fs::path& dir : models()) {
    const MixedExperts source(dir);
    const TemporaryDirectory out;
    const fs::path to = out.path() / "p";
    checkpoint::write_packed(dir, source, to, 2, nullptr);
    const auto [block, all] = expert_bytes(to);
    if (block == 0) continue;
    ++mixed;
    const at::Tensor expected = logits_of(*model::Model::load(source, {.dtype = at::kFloat, .device = at::kCPU}), dir);
    EXPECT_FALSE(expected.equal(logits_of(*load(dir), dir))) << dir;
    EXPECT_TRUE(logits_of(*load(to), dir).equal(expected)) << dir;
    for (const int64_t budget : {2 * block, 3 * block})
      EXPECT_TRUE(logits_of(*load(to, budget), dir).equal(expected)) << dir << " " << budget;
    EXPECT_THAT(checkpoint::open_model(to)->format(), HasSubstr("INT2"));
  }
  EXPECT_GT(mixed, 0);
}

TEST(PackedFile, AFileCutWhileItIsInUseIsAnErrorAndNoAnswer) {
  for (const fs::path& dir : models()) {
    const TemporaryDirectory out;
    const fs::path to = packed(dir, out.path() / "p");
    const auto [block, all] = expert_bytes(to);
    if (block == 0) continue;
    const auto model = load(to, 2 * block);
    fs::resize_file(to / checkpoint::kPackedFile, 4096);
    EXPECT_THROW(logits_of(*model, dir), Error);
    return;
  }
  FAIL() << "no model with packed experts";
}

std::string error_of(const fs::path& dir) {
  try {
    checkpoint::open_model(dir);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(PackedFile, ThatAreDamagedOrOfAnotherModelAreRefused) {
  const std::vector<fs::path> all = models();
  const TemporaryDirectory out;
  const fs::path good = packed(all[0], out.path() / "good");
  EXPECT_EQ(error_of(good), "");
  const fs::path file = good / checkpoint::kPackedFile;
  const io::TensorFile tensors = io::open_safetensors(file);
  const auto with =
      [&](const std::function<void(std::map<std::string, std::string>&, std::vector<io::TensorView>&)>& change) {
        const fs::path bad = out.path() / "bad";
        fs::remove_all(bad);
        fs::create_directories(bad);
        fs::copy(good / "config.json", bad / "config.json");
        auto metadata = tensors.metadata;
        std::vector<io::TensorView> views = tensors.tensors();
        change(metadata, views);
        std::vector<io::TensorSpec> specs;
        for (const io::TensorView& view : views) specs.push_back({view.name, view.dtype, view.shape});
        io::SafetensorsWriter writer(bad / checkpoint::kPackedFile, specs, metadata, 4096);
        for (const io::TensorView& view : views) writer.write(view.bytes);
        writer.commit();
        return error_of(bad);
      };
  EXPECT_EQ(with([](auto&, auto&) {}), "");
  EXPECT_THAT(with([](auto& m, auto&) { m["format"] = "other"; }),
              HasSubstr("no packed model that this version reads"));
  EXPECT_THAT(with([](auto& m, auto&) { m["rows"] = "[]"; }), HasSubstr("no object"));
  EXPECT_THAT(with([](auto& m, auto&) { m["rows"] = "{"; }), HasSubstr(checkpoint::kPackedFile));
  EXPECT_THAT(with([](auto& m, auto&) {
                const size_t at = m["rows"].find("\"bits\":4");
                m["rows"].replace(at, 8, "\"bits\":5");
              }),
              HasSubstr("5 bits in groups"));
  const auto with_formats = [&](auto change) {
    return with([&](auto& metadata, auto&) {
      Json rows = parse_json(metadata["rows"], "rows");
      for (auto& [name, formats] : rows.items())
        if (name.find(".experts.") != name.npos) change(formats);
      metadata["rows"] = rows.dump();
    });
  };
  EXPECT_THAT(with_formats([](Json& formats) { formats["bits"] = 3; }), HasSubstr("bytes at"));
  EXPECT_THAT(with_formats([](Json& formats) {
                formats = {formats, formats, formats, formats, formats};
              }),
              HasSubstr("has 5 formats for"));
  EXPECT_THAT(with_formats([](Json& formats) { formats = Json::array(); }), HasSubstr("lack a format"));
  const size_t experts = static_cast<size_t>(checkpoint::open_model(good)->config().text.num_local_experts);
  EXPECT_EQ(with_formats([&](Json& formats) { formats = Json(experts, formats); }), "");
  EXPECT_THAT(with_formats([&](Json& formats) {
                formats = Json(experts, formats);
                formats[1]["bits"] = 2;
              }),
              HasSubstr("bytes at"));
  EXPECT_THAT(with_formats([&](Json& formats) {
                formats = Json(experts, formats);
                formats[1]["group"] = formats[1]["group"] == 32 ? 128 : 32;
              }),
              HasSubstr("take other rows"));
  EXPECT_THAT(with([](auto& m, auto&) {
                m["rows"].insert(1,
                                 "\"model.none\":{\"bits\":4,\"group\":32,\"channel_scales\":false,\"zeros\":false},");
              }),
              HasSubstr("rows that the model does not have"));
  EXPECT_THAT(with([](auto&, auto& views) { views.erase(views.begin()); }), HasSubstr("is not there"));
  EXPECT_THAT(with([](auto&, auto& views) { views.pop_back(); }), HasSubstr("is not there"));
  EXPECT_THAT(with([](auto&, auto& views) {
                views[0].shape[0] -= 4096;
                views[0].bytes = views[0].bytes.first(views[0].bytes.size() - 4096);
              }),
              HasSubstr("bytes at"));
  fs::resize_file(file, fs::file_size(file) / 2);
  EXPECT_NE(error_of(good), "");
}

TEST(PackedFile, IsNotWrittenOverAModel) {
  const TemporaryDirectory out;
  const fs::path dir = models()[0], to = packed(dir, out.path() / "p");
  EXPECT_THROW(packed(dir, to), Error);
}

}  // namespace
}  // namespace puna::test
