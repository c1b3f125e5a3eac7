// GGUF metadata of architecture "llama4". Several values have no GGUF key: llama.cpp knows them by rule, and so do we,
// but each rule that was needed is told in the config's notes.
#include <algorithm>

#include "arch/config.h"
#include "arch/fields.h"
#include "arch/resolve.h"

namespace puna::arch {
namespace {

class GgufReader {
 public:
  GgufReader(const Json& metadata, std::string_view where) : f_(metadata, where) {}

  Llama4Config read() {
    const std::string arch = f_.string("general.architecture", "");
    if (arch == "llama4-puna") return read_own();
    if (arch != "llama4") f_.refuse("general.architecture", "expected \"llama4\"; Puna runs Llama 4 class models");
    read_sizes();
    read_layers();
    read_attention();
    read_rope();
    read_tokens();
    read_dtype();
    validate(config_, f_.where());
    return std::move(config_);
  }

 private:
  // What llama.cpp has no keys for comes as config.json in one of our own.
  Llama4Config read_own() {
    config_ = config_from_hf(parse_json(f_.string("puna.config", ""), f_.where()), f_.where());
    config_.vision.reset();
    read_dtype();
    return std::move(config_);
  }

  static std::string key(std::string_view name) { return fmt::format("llama4.{}", name); }
  int64_t integer(std::string_view name) const { return f_.integer(key(name)); }
  int64_t integer(std::string_view name, int64_t fallback) const { return f_.integer(key(name), fallback); }
  bool has(std::string_view name) const { return f_.has(key(name)); }

  template <typename... Args>
  void note(fmt::format_string<Args...> format, Args&&... args) {
    config_.notes.push_back(fmt::format(format, std::forward<Args>(args)...));
  }

  void read_sizes() {
    t_.num_hidden_layers = integer("block_count");
    check_num_layers(t_.num_hidden_layers, f_.where());
    t_.hidden_size = integer("embedding_length");
    t_.intermediate_size_mlp = integer("feed_forward_length");
    t_.num_local_experts = integer("expert_count", 0);
    t_.num_experts_per_tok = integer("expert_used_count", 1);
    if (t_.num_local_experts > 0) t_.intermediate_size = integer("expert_feed_forward_length");
    t_.max_position_embeddings = integer("context_length");
    const Json* tokens = f_.find("tokenizer.ggml.tokens");
    if (tokens && !tokens->is_array()) f_.refuse("tokenizer.ggml.tokens", "expected a list");
    if (has("vocab_size"))
      t_.vocab_size = integer("vocab_size");
    else if (tokens)
      t_.vocab_size = static_cast<int64_t>(tokens->size());
    else
      fail(f_.where(), "neither 'llama4.vocab_size' nor 'tokenizer.ggml.tokens' is there; is the file complete?");
  }

  void read_layers() {
    t_.interleave_moe_layer_step = integer("interleave_moe_layer_step", 1);
    if (t_.interleave_moe_layer_step < 1) f_.refuse(key("interleave_moe_layer_step"), "expected 1 or more");
    if (t_.num_local_experts > 0)
      t_.moe_layers = default_moe_layers(t_.num_hidden_layers, t_.interleave_moe_layer_step);
    t_.no_rope_layer_interval = 4;
    t_.uses_rope = default_uses_rope(t_.num_hidden_layers, t_.no_rope_layer_interval);
    note("every 4th layer is without rope and attends to everything: GGUF has no key for it (llama.cpp's rule)");
    if (has("expert_gating_func") && integer("expert_gating_func") != 2)
      f_.refuse(key("expert_gating_func"), "expected 2 (sigmoid)");
  }

  void read_attention() {
    t_.num_attention_heads = integer("attention.head_count");
    t_.num_key_value_heads = integer("attention.head_count_kv", t_.num_attention_heads);
    if (t_.num_attention_heads < 1) f_.refuse(key("attention.head_count"), "expected 1 or more");
    t_.head_dim = integer("attention.key_length", t_.hidden_size / t_.num_attention_heads);
    if (integer("attention.value_length", t_.head_dim) != t_.head_dim)
      f_.refuse(key("attention.value_length"), fmt::format("expected the key length ({})", t_.head_dim));
    t_.rms_norm_eps = f_.number(key("attention.layer_norm_rms_epsilon"));
    t_.use_qk_norm = t_.num_local_experts != 128;
    note("use_qk_norm is {}: GGUF has no key for it (llama.cpp's rule: off with 128 experts, {} here)", t_.use_qk_norm,
         t_.num_local_experts);
    read_chunk_and_temperature();
  }

  void read_chunk_and_temperature() {
    if (has("attention.sliding_window") && integer("attention.sliding_window") == 0)
      f_.refuse(key("attention.sliding_window"), "Llama 4 files without chunked attention are not supported");
    if (has("attention.chunk_size")) {
      t_.attention_chunk_size = integer("attention.chunk_size");
    } else {
      t_.attention_chunk_size = 8192;
      note("attention_chunk_size is 8192: the file has no key for it (llama.cpp's rule)");
    }
    t_.attn_temperature_tuning = true;
    t_.floor_scale = f_.number(key("attention.temperature_length"), 8192);
    t_.attn_scale = f_.number(key("attention.temperature_scale"), 0.1);
    if (!has("attention.temperature_length") || !has("attention.temperature_scale"))
      note("attention temperature is on, with floor_scale {} and attn_scale {}: keys are missing (llama.cpp's rule)",
           t_.floor_scale, t_.attn_scale);
  }

  void read_rope() {
    t_.rope_theta = f_.number(key("rope.freq_base"), 10000);
    if (integer("rope.dimension_count", t_.head_dim) != t_.head_dim)
      f_.refuse(key("rope.dimension_count"), fmt::format("expected the head width ({})", t_.head_dim));
    const std::string type = f_.string(key("rope.scaling.type"), "none");
    if (type != "none" && type != "llama3") f_.refuse(key("rope.scaling.type"), "expected \"none\"");
  }

  // The id of a named token, or -1.
  int64_t token_named(std::string_view name) const {
    const Json* tokens = f_.find("tokenizer.ggml.tokens");
    if (!tokens) return -1;
    const auto it = std::find_if(tokens->rbegin(), tokens->rend(), [&](const Json& token) {
      return token.is_string() && token.get_ref<const std::string&>() == name;
    });
    return it == tokens->rend() ? -1 : static_cast<int64_t>(tokens->rend() - it) - 1;
  }

  void read_tokens() {
    drop_absent_meta_tokens(config_);
    if (f_.find("tokenizer.ggml.tokens")) {
      config_.bos_token_id = token_named("<|begin_of_text|>");
      config_.pad_token_id = token_named("<|finetune_right_pad|>");
      config_.eos_token_ids.clear();
      for (const char* name : {"<|end_of_text|>", "<|eom|>", "<|eot|>"})
        if (const int64_t id = token_named(name); id >= 0) config_.eos_token_ids.push_back(id);
    }
    config_.bos_token_id = f_.integer("tokenizer.ggml.bos_token_id", config_.bos_token_id);
    config_.pad_token_id = f_.integer("tokenizer.ggml.padding_token_id", config_.pad_token_id);
    for (const char* name : {"eos", "eot", "eom"}) {
      const std::string name_key = fmt::format("tokenizer.ggml.{}_token_id", name);
      if (!f_.has(name_key)) continue;
      const int64_t id = f_.integer(name_key);
      if (std::ranges::find(config_.eos_token_ids, id) == config_.eos_token_ids.end())
        config_.eos_token_ids.push_back(id);
    }
  }

  void read_dtype() {
    const int64_t type = f_.integer("general.file_type", -1);
    config_.dtype = type == 0 ? DType::F32 : type == 1 ? DType::F16 : DType::BF16;
  }

  Fields f_;
  Llama4Config config_;
  TextConfig& t_ = config_.text;
};

}  // namespace

Llama4Config config_from_gguf(const Json& metadata, std::string_view where) {
  return GgufReader(metadata, where).read();
}

}  // namespace puna::arch
