#include <gtest/gtest.h>

#include "arch/config.h"
#include "arch/layer_plan.h"
#include "tests/arch/support.h"
#include "tests/support/golden.h"

namespace puna::arch {
namespace {

Llama4Config read(const Json& json) { return config_from_hf(json, "config.json"); }
std::string refusal(const Json& json) {
  return error_of([&] { read(json); });
}

Json without(Json json, const char* key) {
  json.erase(key);
  return json;
}

Json with(Json json, const char* key, Json value) {
  json[key] = std::move(value);
  return json;
}

TEST(HfConfig, GoldenConfigsReadAndRoundTrip) {
  int read_count = 0;
  for (const auto& set : test::golden_sets()) {
    for (const auto& entry : std::filesystem::directory_iterator(set / "ckpt")) {
      const auto path = entry.path() / "config.json";
      const Json json = read_json_file(path);
      const Llama4Config config = config_from_hf(json, path.string());
      const Json& text = json.contains("text_config") ? json["text_config"] : json;
      EXPECT_EQ(config.text.hidden_size, text["hidden_size"]) << path;
      EXPECT_EQ(config.text.head_dim, text["head_dim"]) << path;
      EXPECT_EQ(config.text.attention_chunk_size, text["attention_chunk_size"]) << path;
      EXPECT_EQ(config.text.use_qk_norm, text["use_qk_norm"]) << path;
      EXPECT_EQ(config.eos_token_ids, text["eos_token_id"]) << path;
      EXPECT_EQ(config.bos_token_id, text["bos_token_id"]) << path;
      EXPECT_EQ(config.vision.has_value(), json.contains("vision_config")) << path;
      if (config.vision) {
        EXPECT_EQ(config.image_token_id, json["image_token_index"]) << path;
        EXPECT_EQ(config.vision->vision_output_dim, json["vision_config"]["vision_output_dim"]) << path;
      }
      EXPECT_EQ(config_from_hf(config_to_hf(config), "again"), config) << path;
      ++read_count;
    }
  }
  EXPECT_GE(read_count, 4);
}

TEST(HfConfig, LegacyAndV5StylesGiveTheSameModel) {
  const Json legacy = legacy_text();
  Json v5 = legacy;
  for (const char* key : {"rope_theta", "rope_scaling", "torch_dtype", "no_rope_layers"}) v5.erase(key);
  v5["rope_parameters"] = legacy["rope_scaling"];
  v5["rope_parameters"]["rope_theta"] = 500000.0;
  v5["dtype"] = "bfloat16";
  v5["no_rope_layers"] = {1, 1, 1, 0, 1, 1, 1, 0};
  v5["moe_layers"] = {1, 3, 5, 7};
  v5["attn_temperature_tuning"] = true;
  v5["layer_types"] = Json::array();
  for (int i = 0; i < 8; ++i) v5["layer_types"].push_back(i % 4 == 3 ? "full_attention" : "chunked_attention");
  EXPECT_EQ(read(legacy), read(v5));
  EXPECT_EQ(read(legacy).text.rope_scaling, (RopeScaling{16, 1, 1, 8192}));
}

TEST(HfConfig, MultimodalAndTextOnlyGiveTheSameTextModel) {
  const Llama4Config whole = read(multimodal()), text = read(legacy_text());
  EXPECT_EQ(whole.text, text.text);
  ASSERT_TRUE(whole.vision);
  EXPECT_FALSE(text.vision);
  EXPECT_EQ(whole.image_token_id, 498);
  EXPECT_EQ(text.image_token_id, -1);
  EXPECT_EQ(whole.vision->tokens_per_tile(), 4);
  EXPECT_EQ(read(with(without(multimodal(), "image_token_index"), "image_token_id", 499)).image_token_id, 499);
}

TEST(HfConfig, AbsentKeysTakeTransformersDefaults) {
  const Llama4Config c = read({{"model_type", "llama4_text"}});
  EXPECT_EQ(c.text.vocab_size, 202048);
  EXPECT_EQ(c.text.hidden_size, 5120);
  EXPECT_EQ(c.text.num_hidden_layers, 48);
  EXPECT_EQ(c.text.num_key_value_heads, 8);
  EXPECT_EQ(c.text.head_dim, 128);
  EXPECT_EQ(c.text.num_local_experts, 16);
  EXPECT_EQ(c.text.attention_chunk_size, 8192);
  EXPECT_EQ(c.text.max_position_embeddings, 131072);
  EXPECT_EQ(c.text.rope_theta, 500000);
  EXPECT_FALSE(c.text.rope_scaling);
  EXPECT_TRUE(c.text.use_qk_norm);
  EXPECT_TRUE(c.text.attn_temperature_tuning);
  EXPECT_EQ(c.bos_token_id, 200000);
  EXPECT_EQ(read(without(legacy_text(), "head_dim")).text.head_dim, 16);
  EXPECT_EQ(read(with(legacy_text(), "head_dim", nullptr)).text.head_dim, 16);
}

// Serving notes: "NoPE layers: no_rope_layers[l] == 1 means uses RoPE (name inverted)".
TEST(HfConfig, NoRopeLayersOneMeansRope) {
  for (const Json& absent :
       {legacy_text(), without(legacy_text(), "no_rope_layers"), with(legacy_text(), "no_rope_layers", nullptr)})
    EXPECT_EQ(read(absent).text.uses_rope, (std::vector<int>{1, 1, 1, 0, 1, 1, 1, 0}));
  const auto plan = layer_plan(read(with(legacy_text(), "no_rope_layers", {0, 1, 0, 1, 1, 1, 1, 1})).text);
  EXPECT_FALSE(plan[0].rope);
  EXPECT_FALSE(plan[0].chunked);
  EXPECT_TRUE(plan[1].rope);
  EXPECT_TRUE(plan[1].chunked);
}

// Serving notes: "config value was an int (4) then bool".
TEST(HfConfig, IntegerTemperatureTuningIsABoolean) {
  EXPECT_TRUE(read(with(legacy_text(), "attn_temperature_tuning", 4)).text.attn_temperature_tuning);
  EXPECT_FALSE(read(with(legacy_text(), "attn_temperature_tuning", 0)).text.attn_temperature_tuning);
  EXPECT_FALSE(read(with(legacy_text(), "attn_temperature_tuning", false)).text.attn_temperature_tuning);
}

// Serving notes: "older configs carry factor 8 / high 4: warn".
TEST(HfConfig, EarlyScoutRopeScalingIsKeptAndNoted) {
  Json json = legacy_text();
  EXPECT_TRUE(read(json).notes.empty());
  json["rope_scaling"]["factor"] = 8.0;
  json["rope_scaling"]["high_freq_factor"] = 4.0;
  const Llama4Config c = read(json);
  EXPECT_EQ(c.text.rope_scaling->factor, 8);
  ASSERT_EQ(c.notes.size(), 1u);
  EXPECT_NE(c.notes[0].find("early conversions"), std::string::npos);
}

TEST(HfConfig, LayerTypesMayDifferFromRope) {
  Json json = legacy_text();
  json["layer_types"] = std::vector<std::string>(8, "full_attention");
  const Llama4Config c = read(json);
  for (const LayerPlan& plan : layer_plan(c.text)) EXPECT_FALSE(plan.chunked);
  EXPECT_TRUE(layer_plan(c.text)[0].rope);
  EXPECT_EQ(read(config_to_hf(c)), c);
}

TEST(HfConfig, NullChunkSizeMeansNoChunks) {
  const Llama4Config c = read(with(legacy_text(), "attention_chunk_size", nullptr));
  EXPECT_EQ(c.text.attention_chunk_size, 0);
  for (const LayerPlan& plan : layer_plan(c.text)) EXPECT_FALSE(plan.chunked);
  EXPECT_EQ(read(config_to_hf(c)), c);
}

TEST(HfConfig, MoeLayersMayBeIrregularUnsortedOrEmpty) {
  EXPECT_EQ(read(legacy_text()).text.moe_layers, (std::vector<int64_t>{1, 3, 5, 7}));
  EXPECT_EQ(read(with(legacy_text(), "moe_layers", {5, 0, 5})).text.moe_layers, (std::vector<int64_t>{0, 5}));
  EXPECT_TRUE(read(with(legacy_text(), "moe_layers", Json::array())).text.moe_layers.empty());
}

TEST(HfConfig, RouterKeysOfPunaSurviveRoundTrips) {
  Json json = with(legacy_text(), "puna_router_activation", "softmax");
  json["puna_router_score_on"] = "output";
  const Llama4Config c = read(json);
  EXPECT_EQ(c.text.router_activation, RouterActivation::kSoftmax);
  EXPECT_EQ(c.text.score_on, ScoreOn::kOutput);
  EXPECT_EQ(read(config_to_hf(c)), c);
  EXPECT_FALSE(config_to_hf(read(legacy_text())).contains("puna_router_activation"));
}

TEST(HfConfig, EosMayBeANumberAndPadAbsent) {
  EXPECT_EQ(read(with(legacy_text(), "eos_token_id", 488)).eos_token_ids, (std::vector<int64_t>{488}));
  EXPECT_EQ(read(without(legacy_text(), "pad_token_id")).pad_token_id, -1);
  Json large = with(legacy_text(), "vocab_size", 202048);
  EXPECT_EQ(read(without(large, "pad_token_id")).pad_token_id, 200018);
  EXPECT_EQ(read(with(large, "pad_token_id", nullptr)).pad_token_id, -1);
}

TEST(HfConfig, VisionNormEpsIsIgnoredAndNoted) {
  Json json = multimodal();
  json["vision_config"]["norm_eps"] = 1e-3;
  const Llama4Config c = read(json);
  EXPECT_EQ(c.vision->norm_eps, 1e-5);
  EXPECT_EQ(c.notes.size(), 1u);
}

TEST(HfConfig, RopeFactorsBecomeTheScalingThatMeansThem) {
  Llama4Config c = read(legacy_text());
  c.text.rope_scaling.reset();
  c.text.rope_factors = {1, 1, 1, 1, 16, 16, 16, 16};
  const auto scaling = read(config_to_hf(c)).text.rope_scaling;
  ASSERT_TRUE(scaling);
  EXPECT_EQ(scaling->factor, 16);
  c.text.rope_factors = {1, 1, 1, 1, 1, 1, 1, 1};
  EXPECT_FALSE(read(config_to_hf(c)).text.rope_scaling);
  c.text.rope_factors = {2, 1, 3, 1, 1, 1, 1, 1};
  EXPECT_NE(error_of([&] { config_to_hf(c); }).find("no llama3 scaling"), std::string::npos);
}

struct BadText {
  const char* key;
  const char* value;
  const char* says;
};

class HfTextRefusal : public testing::TestWithParam<BadText> {};

TEST_P(HfTextRefusal, NamesTheKeyAndTheValue) {
  const auto& [key, value, says] = GetParam();
  const std::string message = refusal(with(legacy_text(), key, Json::parse(value)));
  EXPECT_NE(message.find("[config.json]"), std::string::npos) << message;
  EXPECT_NE(message.find(key), std::string::npos) << message;
  EXPECT_NE(message.find(says), std::string::npos) << message;
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    All, HfTextRefusal,
    testing::Values(
        BadText{"model_type", "\"llama\"", "Llama 4"}, BadText{"model_type", "3", "expected a string"},
        BadText{"architectures", "[\"LlamaForCausalLM\"]", "Llama4ForCausalLM"},
        BadText{"num_hidden_layers", "1000000000", "1 to 4096"}, BadText{"num_hidden_layers", "0", "1 to 4096"},
        BadText{"num_hidden_layers", "-4", "1 to 4096"}, BadText{"num_hidden_layers", "\"8\"", "expected an integer"},
        BadText{"num_hidden_layers", "8.5", "expected an integer"}, BadText{"hidden_size", "true", "an integer"},
        BadText{"hidden_size", "18446744073709551615", "2^53"},
        BadText{"hidden_size", "9007199254740992", "expected 1"}, BadText{"hidden_size", "[64]", "expected an integer"},
        BadText{"vocab_size", "0", "expected 1"}, BadText{"num_attention_heads", "0", "1 or more"},
        BadText{"num_attention_heads", "5", "no multiple"}, BadText{"num_key_value_heads", "0", "expected 1"},
        BadText{"num_key_value_heads", "8", "expected 1 to 4"}, BadText{"num_key_value_heads", "3", "no multiple"},
        BadText{"head_dim", "15", "even"}, BadText{"head_dim", "65538", "65536"},
        BadText{"intermediate_size", "0", "expected 1"}, BadText{"intermediate_size_mlp", "-1", "expected 1"},
        BadText{"num_local_experts", "0", "expected 1"}, BadText{"num_local_experts", "100000", "65536"},
        BadText{"num_experts_per_tok", "5", "expected 1 to 4"}, BadText{"num_experts_per_tok", "0", "expected 1"},
        BadText{"interleave_moe_layer_step", "0", "1 or more"}, BadText{"no_rope_layer_interval", "0", "1 or more"},
        BadText{"no_rope_layers", "[1,1]", "each of the 8"}, BadText{"no_rope_layers", "[1,1,1,2,1,1,1,0]", "0 or 1"},
        BadText{"no_rope_layers", "3", "a list"}, BadText{"moe_layers", "[8]", "below 8"},
        BadText{"moe_layers", "[-1]", "ascending"}, BadText{"layer_types", "[\"full_attention\"]", "each of the 8"},
        BadText{"layer_types", "[\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\",\"a\"]", "chunked_attention"},
        BadText{"rms_norm_eps", "0", "above 0"}, BadText{"rms_norm_eps", "2", "at most 1"},
        BadText{"rms_norm_eps", "\"1e-5\"", "finite number"}, BadText{"rope_theta", "-1", "above 0"},
        BadText{"floor_scale", "0", "above 0"}, BadText{"attn_scale", "1e300", "at most"},
        BadText{"attention_chunk_size", "0", "null"}, BadText{"attention_chunk_size", "-8", "null"},
        BadText{"max_position_embeddings", "0", "expected 1"}, BadText{"attention_bias", "true", "not supported"},
        BadText{"tie_word_embeddings", "true", "not supported"}, BadText{"hidden_act", "\"gelu\"", "silu"},
        BadText{"rope_scaling", "{\"rope_type\":\"yarn\",\"factor\":2}", "llama3"},
        BadText{"rope_scaling", "{\"factor\":2}", "llama3"}, BadText{"rope_scaling", "7", "JSON object"},
        BadText{"rope_scaling", "{\"rope_type\":\"llama3\",\"factor\":2}", "missing"},
        BadText{"rope_scaling",
                "{\"rope_type\":\"llama3\",\"factor\":0,\"low_freq_factor\":1,\"high_freq_factor\":4,"
                "\"original_max_position_embeddings\":1}",
                "above 0"},
        BadText{"torch_dtype", "\"int8\"", "bfloat16"}, BadText{"puna_router_activation", "\"relu\"", "sigmoid"},
        BadText{"puna_router_score_on", "1", "expected a string"}, BadText{"bos_token_id", "512", "511"},
        BadText{"eos_token_id", "[481, 4000000000]", "511"}, BadText{"eos_token_id", "\"x\"", "expected an integer"}),
    [](const auto& info) { return fmt::format("{}_{}", info.param.key, info.index); });

TEST(HfConfig, HighFrequencyFactorBelowTheLowOneIsRefused) {
  Json json = legacy_text();
  json["rope_scaling"]["low_freq_factor"] = 4;
  EXPECT_NE(refusal(json).find("high_freq_factor 1 is below low_freq_factor 4"), std::string::npos) << refusal(json);
}

TEST(HfConfig, SizesThatAreEachAllowedButTooMuchTogetherAreRefused) {
  Json json = legacy_text();
  json["hidden_size"] = 1 << 20;
  json["intermediate_size"] = 1 << 22;
  json["num_local_experts"] = 1 << 16;
  EXPECT_NE(refusal(json).find("more than 2^58 parameters"), std::string::npos) << refusal(json);
}

class HfVisionRefusal : public testing::TestWithParam<BadText> {};

TEST_P(HfVisionRefusal, NamesTheKeyAndTheValue) {
  const auto& [key, value, says] = GetParam();
  Json json = multimodal();
  json["vision_config"][key] = Json::parse(value);
  const std::string message = refusal(json);
  EXPECT_NE(message.find(key), std::string::npos) << message;
  EXPECT_NE(message.find(says), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    All, HfVisionRefusal,
    testing::Values(BadText{"intermediate_size", "255", "hidden_size / pixel_shuffle_ratio^2 = 256"},
                    BadText{"pixel_shuffle_ratio", "0.3", "whole number"}, BadText{"pixel_shuffle_ratio", "0", "above"},
                    BadText{"pixel_shuffle_ratio", "1e-300", "above"}, BadText{"image_size", "57", "no multiple"},
                    BadText{"image_size", "[56, 70]", "two equal"}, BadText{"image_size", "42", "no multiple"},
                    BadText{"patch_size", "0", "expected 1"}, BadText{"num_channels", "1", "expected 3"},
                    BadText{"hidden_size", "66", "multiple of 4"},
                    BadText{"num_attention_heads", "32", "multiple of 4"},
                    BadText{"num_hidden_layers", "1000000000", "4096"}, BadText{"hidden_act", "\"silu\"", "gelu"},
                    BadText{"multi_modal_projector_bias", "true", "not supported"},
                    BadText{"projector_input_dim", "64", "vision_output_dim (80)"},
                    BadText{"vision_feature_select_strategy", "\"full\"", "default"},
                    BadText{"vision_feature_layer", "-2", "last layer"}),
    [](const auto& info) { return fmt::format("{}_{}", info.param.key, info.index); });

TEST(HfConfig, NullKeyValueHeadsAreTheQueryHeads) {
  const int64_t heads = read(legacy_text()).text.num_attention_heads;
  ASSERT_NE(heads, 8);
  EXPECT_EQ(read(with(legacy_text(), "num_key_value_heads", nullptr)).text.num_key_value_heads, heads);
}

TEST(HfConfig, ImageTokensOutsideASmallVocabularyAreNotedAndNamedOnesRefused) {
  const Llama4Config config = read(without(multimodal(), "image_token_index"));
  EXPECT_EQ(config.image_token_id, -1);
  EXPECT_TRUE(config.vision);
  ASSERT_FALSE(config.notes.empty());
  EXPECT_NE(config.notes.back().find("images cannot be used"), std::string::npos) << config.notes.back();
  EXPECT_EQ(read(config_to_hf(config)), config);
  EXPECT_NE(refusal(with(multimodal(), "image_token_index", 200092)).find("image_token_index is 200092"),
            std::string::npos);
  const auto whole = read(multimodal());
  for (const auto& note : whole.notes) EXPECT_EQ(note.find("image"), std::string::npos) << note;
}

TEST(HfConfig, PartsOfTheWrongKindAreRefused) {
  EXPECT_NE(refusal(Json::array()).find("expected a JSON object"), std::string::npos);
  EXPECT_NE(refusal(Json::object()).find("model_type"), std::string::npos);
  EXPECT_NE(refusal({{"architectures", {"Llama4ForConditionalGeneration"}}}).find("text_config"), std::string::npos);
  EXPECT_NE(refusal(without(multimodal(), "text_config")).find("text_config"), std::string::npos);
  EXPECT_NE(refusal(without(multimodal(), "vision_config")).find("vision_config"), std::string::npos);
  EXPECT_NE(refusal(with(multimodal(), "vision_config", 3)).find("JSON object"), std::string::npos);
  EXPECT_NE(refusal(with(multimodal(), "tie_word_embeddings", true)).find("tied"), std::string::npos);
}

}  // namespace
}  // namespace puna::arch
