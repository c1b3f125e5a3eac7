// Exact sums of the named models, cache sizes, FLOPs and what `puna inspect` prints.
#include <gtest/gtest.h>

#include "arch/counts.h"
#include "arch/describe.h"
#include "arch/rope_factors.h"
#include "tests/arch/support.h"

namespace puna::arch {
namespace {

TEST(Counts, ScoutIs17BActiveOf109B) {
  const ParameterCounts counts = count_parameters(*preset("scout"));
  EXPECT_EQ(counts.total, 108641793536);
  EXPECT_EQ(counts.active, 17172894720);
  EXPECT_EQ(counts.text, 107769861120);
  EXPECT_EQ(counts.vision, 871932416);
}

TEST(Counts, MaverickIs17BActiveOf400B) {
  const ParameterCounts counts = count_parameters(*preset("maverick"));
  EXPECT_EQ(counts.total, 401583781376);
  EXPECT_EQ(counts.active, 17184691200);
  EXPECT_EQ(counts.text, 400711848960);
}

TEST(Counts, BehemothIs288BActiveOfAbout2T) {
  const ParameterCounts counts = count_parameters(*preset("behemoth"));
  EXPECT_EQ(counts.total, 1979736447488);
  EXPECT_EQ(counts.active, 287683393536);
  EXPECT_EQ(preset("behemoth")->text.num_local_experts, 16);
  EXPECT_FALSE(preset("behemoth")->notes.empty());
}

TEST(Counts, KindsAddUp) {
  for (const std::string& name : preset_names()) {
    const ParameterCounts counts = count_parameters(*preset(name));
    int64_t total = 0, active = 0;
    for (const KindCount& kind : counts.kinds) total += kind.total, active += kind.active;
    EXPECT_EQ(total, counts.total) << name;
    EXPECT_EQ(active, counts.active) << name;
    EXPECT_EQ(counts.text + counts.vision, counts.total) << name;
  }
}

TEST(Counts, WeightBytes) {
  const Llama4Config tiny = *preset("tiny");
  const int64_t total = count_parameters(tiny).total;
  EXPECT_EQ(weight_bytes(tiny, DType::F32), 4 * total);
  EXPECT_EQ(weight_bytes(tiny, DType::BF16), 2 * total);
  const int64_t quantisable = 49152 + 294912 + 73728;  // attention, routed and shared experts
  EXPECT_EQ(weight_bytes(tiny, DType::F8E4M3), 2 * total - quantisable);
  EXPECT_EQ(weight_bytes_int4(tiny), 2 * (total - quantisable) + quantisable / 2 + quantisable / 16);
}

// Serving notes: "4096 B/token/layer. Global 12 layers = 48 KiB/token; chunked 36 layers <= 1.125 GiB per sequence."
TEST(Counts, ScoutsCacheIsBoundedInChunkedLayers) {
  const TextConfig scout = preset("scout")->text;
  const int64_t chunked = 36 * int64_t{8192} * 4096;
  EXPECT_EQ(chunked, 1207959552);  // 1.125 GiB
  EXPECT_EQ(kv_cache_bytes(scout, 0, DType::BF16), 0);
  EXPECT_EQ(kv_cache_bytes(scout, 100, DType::BF16), 48 * 100 * 4096);
  EXPECT_EQ(kv_cache_bytes(scout, 131072, DType::BF16), chunked + 12 * int64_t{131072} * 4096);
  EXPECT_EQ(kv_cache_bytes(scout, 10 << 20, DType::BF16), chunked + 12 * (int64_t{10} << 20) * 4096);
  EXPECT_EQ(kv_cache_bytes(scout, 131072, DType::I8) * 2, kv_cache_bytes(scout, 131072, DType::BF16));
  EXPECT_NE(error_of([&] { kv_cache_bytes(scout, INT64_MAX / 64, DType::BF16); }).find("2^63"), std::string::npos);
}

TEST(Counts, FlopsAreTwicePerActiveWeightPlusAttention) {
  const Llama4Config scout = *preset("scout");
  const double matmul = 17172894720.0 - 1034485760.0 - 496640.0;  // without embedding and norms
  EXPECT_DOUBLE_EQ(flops_per_token(scout, 1), 2 * matmul + 4 * 48.0 * 40 * 128);
  EXPECT_DOUBLE_EQ(flops_per_token(scout, 1 << 20), 2 * matmul + 4 * (36.0 * 8192 + 12.0 * (1 << 20)) * 40 * 128);
}

// Serving notes: "low = high = 1.0: the smooth branch would divide by zero: step function".
TEST(RopeFactors, EqualLowAndHighAreAStep) {
  const auto factors = factors_of_scaling({16, 1, 1, 8192}, 500000, 128);
  ASSERT_EQ(factors.size(), 64u);
  size_t plain = 0;
  for (double factor : factors) {
    EXPECT_TRUE(factor == 1 || factor == 16) << factor;
    plain += factor == 1;
  }
  EXPECT_EQ(plain, 35u);  // 2 pi 500000^(2j/128) < 8192 for j <= 34
}

TEST(RopeFactors, SmoothScalingComesBack) {
  TextConfig t = preset("scout")->text;
  t.rope_factors = factors_of_scaling({8, 1, 4, 8192}, t.rope_theta, t.head_dim);
  EXPECT_EQ(scaling_of_factors(t), (RopeScaling{8, 1, 4, 8192}));
}

TEST(Describe, EqualLayersShareALine) {
  const auto json = describe_json(*preset("maverick"), "maverick");
  EXPECT_EQ(json["layers"].size(), 3u);
  EXPECT_EQ(json["parameters"]["total"], 401583781376);
  EXPECT_EQ(json["contexts"].size(), 4u);
  EXPECT_EQ(json["contexts"][1]["cache_bytes"], 36 * int64_t{8192} * 4096 + 12 * int64_t{131072} * 4096);
  const std::string text = describe_text(*preset("scout"), "scout");
  EXPECT_NE(text.find("scout: 108.64B parameters, 17.17B active per text token (15.8%)"), std::string::npos) << text;
  EXPECT_NE(text.find("0-2, 4-6, ..., 44-46 (36)"), std::string::npos) << text;
  EXPECT_NE(text.find("3, 7, ..., 47 (12)"), std::string::npos) << text;
}

TEST(Describe, NotesAreShown) {
  const Llama4Config c = config_from_gguf(gguf_metadata(), "x");
  const std::string text = describe_text(c, "x.gguf");
  for (const std::string& note : c.notes) EXPECT_NE(text.find(note), std::string::npos) << note;
  EXPECT_EQ(describe_json(c, "x")["notes"].size(), c.notes.size());
}

TEST(Presets, AllAreValidAndRoundTrip) {
  for (const std::string& name : preset_names()) {
    Llama4Config config = *preset(name);
    EXPECT_EQ(error_of([&] { validate(config, name); }), "");
    config.notes.clear();
    EXPECT_EQ(config_from_hf(config_to_hf(config), name), config) << name;
  }
  EXPECT_FALSE(preset("llama"));
}

}  // namespace
}  // namespace puna::arch
