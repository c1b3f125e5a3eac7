// The text model of recipes in tests: two layers, one of experts, trained in a second.
#pragma once

#include <string>

namespace puna::test {

/// Lines of its table in a recipe; what differs follows them.
inline const std::string kTinyText = R"(hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 1
head_dim = 16
intermediate_size = 32
intermediate_size_mlp = 32
num_local_experts = 2
num_experts_per_tok = 1
interleave_moe_layer_step = 2
no_rope_layer_interval = 2
attention_chunk_size = 32
rope_theta = 10000.0
)";

}  // namespace puna::test
