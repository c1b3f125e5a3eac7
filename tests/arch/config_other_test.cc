// Meta's params.json and GGUF metadata.
#include <gtest/gtest.h>

#include <limits>

#include "arch/config.h"
#include "arch/layer_plan.h"
#include "tests/arch/support.h"

namespace puna::arch {
namespace {

Json meta_maverick() {
  Json json = meta_scout();
  json["use_scaled_rope"] = false;
  json["use_qk_norm"] = false;
  json["moe_args"]["num_experts"] = 128;
  json["moe_args"]["interleave_moe_layer_step"] = 2;
  return json;
}

Llama4Config without_notes(Llama4Config config) {
  config.notes.clear();
  return config;
}

TEST(MetaConfig, ScoutAndMaverickAreThePresets) {
  EXPECT_EQ(without_notes(config_from_meta(meta_scout(), "params.json")), *preset("scout"));
  EXPECT_EQ(without_notes(config_from_meta(meta_maverick(), "params.json")), *preset("maverick"));
}

TEST(MetaConfig, FeedForwardWidthsFollowMetasRounding) {
  Json json = meta_scout();
  json["dim"] = 640;  // 40 heads of 16
  json.erase("head_dim");
  json["multiple_of"] = 32;
  json["ffn_dim_multiplier"] = 1.3;
  json["ffn_exp"] = 3.5;
  // dense: int(1.3 * int(2 * 2560 / 3)) = 2217 -> 2240; experts: int(2240 * 2 / 3) = 1493, * 1.3 = 1940, / 2 = 970 ->
  // 992
  Llama4Config c = config_from_meta(json, "params.json");
  EXPECT_EQ(c.text.intermediate_size_mlp, 2240);
  EXPECT_EQ(c.text.intermediate_size, 992);
  json["moe_args"]["auto_scale_F"] = false;
  EXPECT_EQ(config_from_meta(json, "params.json").text.intermediate_size, 1952);
}

TEST(MetaConfig, AbsentKeysMeanWhatMetasCodeDoes) {
  Json json = meta_scout();
  for (const char* key : {"nope_layer_interval", "attention_chunk_size", "moe_args", "vision_args", "use_qk_norm",
                          "attn_temperature_tuning"})
    json.erase(key);
  const Llama4Config c = config_from_meta(json, "params.json");
  for (const LayerPlan& plan : layer_plan(c.text))
    EXPECT_TRUE(plan.rope && !plan.chunked && !plan.moe && !plan.qk_norm && !plan.temperature) << plan.index;
  EXPECT_FALSE(c.vision);
  EXPECT_EQ(config_from_hf(config_to_hf(c), "x").text.uses_rope, c.text.uses_rope);
}

TEST(MetaConfig, AVisionModelWithASmallVocabularyOpensForTextAlone) {
  Json json = meta_scout();
  json["vocab_size"] = 512;
  const Llama4Config c = config_from_meta(json, "params.json");
  EXPECT_TRUE(c.vision);
  EXPECT_EQ(c.image_token_id, -1);
  EXPECT_EQ(c.eos_token_ids, std::vector<int64_t>());
  EXPECT_NE(c.notes.back().find("vocabulary of 512"), std::string::npos) << c.notes.back();
}

TEST(MetaConfig, ScaledRopeTakesTheFilesFactorsWhenThere) {
  Json json = meta_scout();
  json["rope_scaling_factor"] = 8;
  json["rope_high_freq_factor"] = 4;
  EXPECT_EQ(config_from_meta(json, "p").text.rope_scaling, (RopeScaling{8, 1, 4, 8192}));
}

struct BadValue {
  const char* key;
  const char* value;
  const char* says;
};

std::string test_name(const testing::TestParamInfo<BadValue>& info) {
  std::string name = fmt::format("{}_{}", info.param.key, info.index);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

class MetaRefusal : public testing::TestWithParam<BadValue> {};

TEST_P(MetaRefusal, NamesTheKeyAndTheValue) {
  const auto& [key, value, says] = GetParam();
  Json json = meta_scout();
  json[Json::json_pointer(key)] = Json::parse(value);
  const std::string message = error_of([&] { config_from_meta(json, "params.json"); });
  EXPECT_NE(message.find(says), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    All, MetaRefusal,
    testing::Values(BadValue{"/dim", "null", "'dim' is missing"}, BadValue{"/dim", "9000000000", "'dim' is 9000000000"},
                    BadValue{"/n_layers", "1000000000", "1 to 4096"}, BadValue{"/n_heads", "7", "divisor of dim"},
                    BadValue{"/n_heads", "0", "divisor"}, BadValue{"/n_kv_heads", "7", "no multiple"},
                    BadValue{"/head_dim", "64", "dim / n_heads (128)"}, BadValue{"/multiple_of", "0", "multiple_of"},
                    BadValue{"/ffn_exp", "1e30", "ffn_exp"}, BadValue{"/ffn_exp", "null", "'ffn_exp' is missing"},
                    BadValue{"/ffn_dim_multiplier", "-1", "ffn_dim_multiplier"},
                    BadValue{"/moe_args/capacity_factor", "-1", "moe_args.capacity_factor"},
                    BadValue{"/moe_args/num_experts", "-1", "num_local_experts is -1"},
                    BadValue{"/moe_args/top_k", "17", "num_experts_per_tok is 17"},
                    BadValue{"/moe_args/interleave_moe_layer_step", "0", "interleave_moe_layer_step"},
                    BadValue{"/nope_layer_interval", "0", "nope_layer_interval"},
                    BadValue{"/attention_chunk_size", "-1", "attention_chunk_size"},
                    BadValue{"/vision_args/image_size", "336", "JSON object"},
                    BadValue{"/vision_args/image_size/width", "350", "square"},
                    BadValue{"/vision_args/mlp_ratio", "1e40", "mlp_ratio"},
                    BadValue{"/quantization_args", "{\"group_size\": 32}", "not supported"}),
    test_name);

TEST(GgufConfig, SizesAreTheHuggingFaceOnes) {
  Llama4Config hf = config_from_hf(legacy_text(), "config.json");
  hf.text.rope_scaling.reset();  // the tensor rope_freqs.weight tells it
  hf.text.attention_chunk_size = 8192;
  hf.text.floor_scale = 8192;
  hf.eos_token_ids = {488};
  hf.pad_token_id = -1;
  EXPECT_EQ(without_notes(config_from_gguf(gguf_metadata(), "x.gguf")), hf);
}

bool has_note(const Llama4Config& c, std::string_view text) {
  for (const std::string& note : c.notes)
    if (note.find(text) != std::string::npos) return true;
  return false;
}

// Serving notes: "GGUF lacks the key: use the rule and print it" (qk-norm by the number of experts).
TEST(GgufConfig, QkNormFollowsTheExpertRuleAndSaysSo) {
  EXPECT_TRUE(config_from_gguf(gguf_metadata(), "x").text.use_qk_norm);
  Json json = gguf_metadata();
  json["llama4.expert_count"] = 128;
  const Llama4Config c = config_from_gguf(json, "x");
  EXPECT_FALSE(c.text.use_qk_norm);
  EXPECT_TRUE(has_note(c, "use_qk_norm is false"));
}

// Serving notes: "No GGUF key for the chunk size, floor scale or attn scale: llama.cpp hard-codes 8192/0.1".
TEST(GgufConfig, ChunkAndTemperatureRulesAreNotedAndKeysHonoured) {
  Json json = gguf_metadata();
  const Llama4Config ruled = config_from_gguf(json, "x");
  EXPECT_EQ(ruled.text.attention_chunk_size, 8192);
  EXPECT_TRUE(has_note(ruled, "attention_chunk_size is 8192"));
  EXPECT_TRUE(has_note(ruled, "floor_scale 8192"));
  json["llama4.attention.chunk_size"] = 64;
  json["llama4.attention.temperature_length"] = 32;
  json["llama4.attention.temperature_scale"] = 0.25;
  const Llama4Config told = config_from_gguf(json, "x");
  EXPECT_EQ(told.text.attention_chunk_size, 64);
  EXPECT_EQ(told.text.floor_scale, 32);
  EXPECT_EQ(told.text.attn_scale, 0.25);
  EXPECT_FALSE(has_note(told, "attention_chunk_size"));
  EXPECT_FALSE(has_note(told, "floor_scale"));
}

TEST(GgufConfig, TokensAreFoundByNameInTheVocabulary) {
  Json json = gguf_metadata();
  json.erase("llama4.vocab_size");
  json.erase("tokenizer.ggml.bos_token_id");
  json["tokenizer.ggml.tokens"] = {"a",       "b",       "<|begin_of_text|>", "<|end_of_text|>",
                                   "<|eom|>", "<|eot|>", "<|patch|>",         "<|finetune_right_pad|>"};
  json["tokenizer.ggml.eos_token_id"] = 5;
  const Llama4Config c = config_from_gguf(json, "x");
  EXPECT_EQ(c.text.vocab_size, 8);
  EXPECT_EQ(c.bos_token_id, 2);
  EXPECT_EQ(c.eos_token_ids, (std::vector<int64_t>{3, 4, 5}));
  EXPECT_EQ(c.pad_token_id, 7);
  EXPECT_EQ(c.image_token_id, -1);  // no vision
}

class GgufRefusal : public testing::TestWithParam<BadValue> {};

TEST_P(GgufRefusal, NamesTheKeyAndTheValue) {
  const auto& [key, value, says] = GetParam();
  Json json = gguf_metadata();
  json[key] = Json::parse(value);
  const std::string message = error_of([&] { config_from_gguf(json, "x.gguf"); });
  EXPECT_NE(message.find(says), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(All, GgufRefusal,
                         testing::Values(BadValue{"general.architecture", "\"llama\"", "expected \"llama4\""},
                                         BadValue{"general.architecture", "null", "expected \"llama4\""},
                                         BadValue{"llama4.block_count", "1000000000", "1 to 4096"},
                                         BadValue{"llama4.block_count", "null", "'llama4.block_count' is missing"},
                                         BadValue{"llama4.attention.head_count", "[4, 4]", "expected an integer"},
                                         BadValue{"llama4.attention.head_count", "0", "1 or more"},
                                         BadValue{"llama4.attention.value_length", "8", "key length (16)"},
                                         BadValue{"llama4.attention.sliding_window", "0", "without chunked attention"},
                                         BadValue{"llama4.expert_gating_func", "1", "sigmoid"},
                                         BadValue{"llama4.interleave_moe_layer_step", "0", "1 or more"},
                                         BadValue{"llama4.rope.dimension_count", "8", "head width (16)"},
                                         BadValue{"llama4.rope.scaling.type", "\"yarn\"", "rope.scaling.type"},
                                         BadValue{"tokenizer.ggml.tokens", "3", "expected a list"},
                                         BadValue{"tokenizer.ggml.eos_token_id", "512", "511"},
                                         BadValue{"llama4.vocab_size", "-1", "vocab_size is -1"}),
                         test_name);

TEST(GgufConfig, NotANumberIsRefused) {
  Json json = gguf_metadata();
  json["llama4.rope.freq_base"] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_NE(error_of([&] { config_from_gguf(json, "x"); }).find("finite number"), std::string::npos);
  json["llama4.rope.freq_base"] = std::numeric_limits<double>::infinity();
  EXPECT_NE(error_of([&] { config_from_gguf(json, "x"); }).find("finite number"), std::string::npos);
}

}  // namespace
}  // namespace puna::arch
