// Named models. Scout and Maverick are the released ones; Behemoth's sizes and tiny's are Puna's own choice.
#include "arch/config.h"
#include "arch/resolve.h"

namespace puna::arch {
namespace {

void set_layers(TextConfig& t, int64_t num_layers, int64_t moe_step) {
  t.num_hidden_layers = num_layers;
  t.interleave_moe_layer_step = moe_step;
  t.uses_rope = default_uses_rope(num_layers, t.no_rope_layer_interval);
  t.moe_layers = default_moe_layers(num_layers, moe_step);
}

VisionConfig released_vision() {
  return {.hidden_size = 1408,
          .num_hidden_layers = 34,
          .num_attention_heads = 16,
          .intermediate_size = 5632,
          .vision_output_dim = 4096};
}

// What Scout and Maverick share.
Llama4Config released() {
  Llama4Config c;
  TextConfig& t = c.text;
  t.vocab_size = 202048;
  t.hidden_size = 5120;
  t.num_attention_heads = 40;
  t.num_key_value_heads = 8;
  t.head_dim = 128;
  t.intermediate_size = 8192;
  t.intermediate_size_mlp = 16384;
  t.max_position_embeddings = 1048576;
  c.vision = released_vision();
  return c;
}

Llama4Config scout() {
  Llama4Config c = released();
  c.text.num_local_experts = 16;
  c.text.rope_scaling = RopeScaling{.factor = 16};
  c.text.max_position_embeddings = 10485760;
  set_layers(c.text, 48, 1);
  return c;
}

Llama4Config maverick() {
  Llama4Config c = released();
  c.text.num_local_experts = 128;
  c.text.use_qk_norm = false;
  set_layers(c.text, 48, 2);
  return c;
}

// Known of Behemoth: 288B active, nearly 2T in all, 16 experts. Chosen here: Scout's shape (experts in every layer, as
// wide as the shared one), with widths that meet both sums.
Llama4Config behemoth() {
  Llama4Config c = released();
  TextConfig& t = c.text;
  t.hidden_size = 14336;
  t.num_attention_heads = 112;
  t.intermediate_size = 20480;
  t.intermediate_size_mlp = 40960;
  t.num_local_experts = 16;
  set_layers(t, 128, 1);
  c.notes.push_back(
      "Behemoth's sizes are unpublished: these are Puna's choice, to give 288B active and about 2T parameters with 16 "
      "experts");
  return c;
}

// Meta's 2,048 special tokens after the 256 single bytes, in Meta's order.
void set_byte_vocabulary(Llama4Config& c) {
  constexpr int64_t kBytes = 256, kMetaRanks = 200000;
  c.text.vocab_size = kBytes + 2048;
  for (int64_t* id : {&c.bos_token_id, &c.pad_token_id, &c.image_token_id, &c.boi_token_id, &c.eoi_token_id})
    *id += kBytes - kMetaRanks;
  for (int64_t& id : c.eos_token_ids) id += kBytes - kMetaRanks;
}

// Small enough to run anywhere, yet with every branch: both kinds of attention, chunks and temperature that set in
// within a short prompt, experts, images.
Llama4Config tiny() {
  Llama4Config c;
  set_byte_vocabulary(c);
  TextConfig& t = c.text;
  t.hidden_size = 64;
  t.num_attention_heads = 4;
  t.num_key_value_heads = 2;
  t.head_dim = 16;
  t.intermediate_size = 96;
  t.intermediate_size_mlp = 192;
  t.num_local_experts = 4;
  t.attention_chunk_size = 64;
  t.floor_scale = 32;
  t.max_position_embeddings = 16384;
  set_layers(t, 4, 1);
  c.vision = VisionConfig{.hidden_size = 64,
                          .num_hidden_layers = 2,
                          .num_attention_heads = 4,
                          .intermediate_size = 256,
                          .image_size = 56,
                          .vision_output_dim = 64};
  return c;
}

}  // namespace

std::optional<Llama4Config> preset(std::string_view name) {
  if (name == "tiny") return tiny();
  if (name == "scout") return scout();
  if (name == "maverick") return maverick();
  if (name == "behemoth") return behemoth();
  return std::nullopt;
}

std::vector<std::string> preset_names() { return {"tiny", "scout", "maverick", "behemoth"}; }

}  // namespace puna::arch
