// Steps that all config readers share. Internal to src/arch.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "arch/config.h"

namespace puna::arch {

inline constexpr int64_t kMaxLayers = 4096;

/// Throws Error unless 1 <= num_hidden_layers <= kMaxLayers; to be called before anything is sized by it.
void check_num_layers(int64_t num_layers, std::string_view where);

/// Per layer 1 for rope, 0 for every `interval`-th layer: int((i + 1) % interval != 0) (SPEC 1). interval >= 1.
std::vector<int> default_uses_rope(int64_t num_layers, int64_t interval);
/// range(step - 1, num_layers, step) (SPEC 1). step >= 1.
std::vector<int64_t> default_moe_layers(int64_t num_layers, int64_t step);

/// Sets every special token id that the vocabulary does not have to -1, and drops such eos ids. Without a vision model
/// the image tokens are -1 too. To be called once vocabulary and vision are known.
void drop_absent_meta_tokens(Llama4Config& config);

/// Adds a note when there is a vision model and not all of the image tokens: such a model can only be used for text.
void note_absent_image_tokens(Llama4Config& config);

}  // namespace puna::arch
