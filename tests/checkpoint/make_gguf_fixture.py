"""Writes a text-only golden checkpoint as GGUF with mixed types, and what gguf-py makes of its blocks.

    make_gguf_fixture.py CHECKPOINT OUT

OUT gets model.gguf (types F32, F16, BF16, Q8_0 and Q4_0 in turn) and expected.safetensors (fp32, Hugging Face names).
"""
import json, pathlib, sys
import gguf, numpy as np, torch
from gguf import GGMLQuantizationType as T
from safetensors.torch import load_file, save_file

source, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
c = json.loads((source / "config.json").read_text())
w = gguf.GGUFWriter(str(out / "model.gguf"), "llama4")
w.add_context_length(c["max_position_embeddings"])
w.add_embedding_length(c["hidden_size"])
w.add_block_count(c["num_hidden_layers"])
w.add_feed_forward_length(c["intermediate_size_mlp"])
w.add_expert_feed_forward_length(c["intermediate_size"])
w.add_head_count(c["num_attention_heads"])
w.add_head_count_kv(c["num_key_value_heads"])
w.add_key_length(c["head_dim"])
w.add_value_length(c["head_dim"])
w.add_rope_dimension_count(c["head_dim"])
w.add_rope_freq_base(c["rope_theta"])
w.add_layer_norm_rms_eps(c["rms_norm_eps"])
w.add_expert_count(c["num_local_experts"])
w.add_expert_used_count(c["num_experts_per_tok"])
w.add_interleave_moe_layer_step(c["interleave_moe_layer_step"])
w.add_vocab_size(c["vocab_size"])
factors = np.linspace(1, 16, c["head_dim"] // 2, dtype=np.float32)
w.add_tensor("rope_freqs.weight", factors)
expected, turn = {"rope_freqs": torch.from_numpy(factors)}, 0


def add(name, x, quantise):
    """Writes x with the next type; returns what a reader gets."""
    global turn
    x = np.ascontiguousarray(x.float().numpy())
    kind = T.F32
    if quantise:
        kind = (T.Q8_0, T.Q4_0, T.F16, T.BF16, T.F32)[turn % 5]
        turn += 1
    data = gguf.quants.quantize(x, kind)
    w.add_tensor(name, data, raw_dtype=kind)
    return torch.from_numpy(np.array(gguf.quants.dequantize(data, kind), dtype=np.float32).reshape(x.shape))


NAMES = {"input_layernorm.weight": "attn_norm", "post_attention_layernorm.weight": "ffn_norm", "feed_forward.router.weight": "ffn_gate_inp",
         **{f"self_attn.{x}_proj.weight": f"attn_{'output' if x == 'o' else x}" for x in "qkvo"},
         **{f"feed_forward.shared_expert.{x}_proj.weight": f"ffn_{x}_shexp" for x in ("gate", "up", "down")},
         **{f"feed_forward.{x}_proj.weight": f"ffn_{x}" for x in ("gate", "up", "down")}}
TOP = {"model.embed_tokens.weight": "token_embd", "model.norm.weight": "output_norm", "lm_head.weight": "output"}
for k, x in load_file(str(source / "model.safetensors")).items():
    if k in TOP:
        expected[k] = add(TOP[k] + ".weight", x, x.dim() == 2)
        continue
    i, r = k.removeprefix("model.layers.").split(".", 1)
    if r == "feed_forward.experts.gate_up_proj":
        halves = [add(f"blk.{i}.ffn_{n}_exps.weight", h.transpose(1, 2), True) for n, h in zip(("gate", "up"), x.chunk(2, -1))]
        expected[k] = torch.cat(halves, 1).transpose(1, 2).contiguous()
    elif r == "feed_forward.experts.down_proj":
        expected[k] = add(f"blk.{i}.ffn_down_exps.weight", x.transpose(1, 2), True).transpose(1, 2).contiguous()
    else:
        expected[k] = add(f"blk.{i}.{NAMES[r]}.weight", x, x.dim() == 2 and "router" not in r)
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
save_file(expected, str(out / "expected.safetensors"))
