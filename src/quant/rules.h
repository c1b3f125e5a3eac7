// Which weights get which format: presets, and a TOML file of one key per part of the model.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "arch/parameters.h"
#include "base/json.h"
#include "quant/format.h"

namespace puna::quant {

/// The router, norms, biases and position embeddings stay as they are in the source, whatever the rules.
struct Rules {
  Format attention, shared_expert, routed_experts, dense_ffn, head, embedding, vision, projector;

  /// Throws Error for a format that the output cannot hold: GGUF's blocks and the others exclude one another.
  void check_layout(bool gguf, std::string_view where) const;
  /// The format of a row's matrices; kKeep for rows that no rule is about.
  const Format& of(const arch::ParamRow& row) const;
  Json json() const;
  bool operator==(const Rules&) const = default;
};

/// "int4": groups of 32. "int8", "fp8": per channel. "mixed": routed experts int4, the other linears of the text layers
/// int8. "q8_0", "q4_0", "q4_k": that block. Head, embedding, vision and projector are kept. Throws Error that names
/// the nearest preset.
Rules preset_rules(std::string_view name, std::string_view where);

/// A TOML file: `preset` (absent: everything kept), then keys as the fields of Rules. Throws Error for unknown keys and
/// formats, and for an embedding quantised otherwise than for GGUF, which no reader of compressed-tensors takes.
Rules parse_rules(std::string_view toml, std::string_view where);

/// A preset's name, or the path of a file that ends in ".toml".
Rules read_rules(const std::string& preset_or_file);

}  // namespace puna::quant
