"""Writes golden Hugging Face checkpoints in Meta's layout, the inverse of transformers' conversion.

    make_meta_fixture.py OUT CHECKPOINT:SHARDS[:plain] ...

OUT/0, OUT/1, ... get params.json and consolidated.00.pth ..., one directory per argument; "plain" uses the names after
llama-models' load hooks (wq, wk, wv, w1, w2, w3). Models with vision get Meta's whole vocabulary (zeros at the end), since
params.json cannot tell which token is the image's.
"""
import io, json, pathlib, sys
import torch
from safetensors.torch import load_file

VISION = "vision_embeddings.vision_encoder."


def params_of(config):
    t = config.get("text_config", config)
    D, F, Fm = t["hidden_size"], t["intermediate_size"], t["intermediate_size_mlp"]
    moe = {"num_experts": t["num_local_experts"], "top_k": t["num_experts_per_tok"], "capacity_factor": 1.0,
           "auto_scale_F": True, "interleave_moe_layer_step": t["interleave_moe_layer_step"]}
    # Meta derives F from these: int(int(2 * int(ffn_exp * D) / 3) * mult / 2), up to multiple_of; Fm likewise without the half.
    p = dict(dim=D, n_layers=t["num_hidden_layers"], n_heads=t["num_attention_heads"], n_kv_heads=t["num_key_value_heads"],
             head_dim=t["head_dim"], vocab_size=t["vocab_size"], multiple_of=1, norm_eps=t["rms_norm_eps"],
             attention_chunk_size=t["attention_chunk_size"], rope_theta=t.get("rope_theta", 500000.0),
             use_scaled_rope=t.get("rope_scaling") is not None, nope_layer_interval=t.get("no_rope_layer_interval", 4),
             use_qk_norm=t["use_qk_norm"], attn_temperature_tuning=bool(t["attn_temperature_tuning"]),
             floor_scale=float(t["floor_scale"]), attn_scale=t["attn_scale"], moe_args=moe)
    if t.get("rope_scaling"):
        p["rope_scaling_factor"] = t["rope_scaling"]["factor"]
        p["rope_high_freq_factor"] = t["rope_scaling"]["high_freq_factor"]

    def dense(mult):
        return int(mult * int(2 * (4 * D) / 3))

    def expert(mult, exp):
        return int(int(mult * int(2 * int(exp * D) / 3)) / 2)
    p["ffn_dim_multiplier"] = next(m / 1000 for m in range(1, 100000) if dense(m / 1000) == Fm)
    p["ffn_exp"] = next(x / 1000 for x in range(1, 100000) if expert(p["ffn_dim_multiplier"], x / 1000) == F)
    v = config.get("vision_config")
    if v:
        side = {"height": v["image_size"], "width": v["image_size"]}
        patch = {"height": v["patch_size"], "width": v["patch_size"]}
        p["vision_args"] = dict(image_size=side, patch_size=patch, dim=v["hidden_size"], n_layers=v["num_hidden_layers"],
                                n_heads=v["num_attention_heads"], mlp_ratio=v["intermediate_size"] / v["hidden_size"],
                                output_dim=v["vision_output_dim"], pixel_shuffle_ratio=v["pixel_shuffle_ratio"])
    return p


def text_layer(sd, i, plain):
    """{meta name: (tensor, split dimension or None)} of one text layer; wqkv as a list of its parts."""
    g = lambda n: sd[f"model.layers.{i}.{n}"]
    q, k, v = (g(f"self_attn.{x}_proj.weight") for x in "qkv")
    out = {}
    a, f = f"layers.{i}.attention.", f"layers.{i}.feed_forward."
    if plain:
        out |= {a + "wq.weight": (q, 0), a + "wk.weight": (k, 0), a + "wv.weight": (v, 0),
                f"layers.{i}.attention_norm.weight": (g("input_layernorm.weight"), None),
                f"layers.{i}.ffn_norm.weight": (g("post_attention_layernorm.weight"), None)}
    else:
        out |= {a + "wqkv.weight": ([q, k, v], 0), a + "wqkv.layer_norm_weight": (g("input_layernorm.weight"), None),
                a + "wo._extra_state": (io.BytesIO(b"state"), None)}
    out[a + "wo.weight"] = (g("self_attn.o_proj.weight"), 1)
    if f"model.layers.{i}.feed_forward.router.weight" in sd:
        if not plain:
            out[f + "norm.weight"] = (g("post_attention_layernorm.weight"), None)
        gate, up = g("feed_forward.experts.gate_up_proj").chunk(2, -1)
        s = "feed_forward.shared_expert."
        out |= {f + "router_DE": (g("feed_forward.router.weight").T, None),
                f + "experts.moe_w_in_eD_F": (gate, 2), f + "experts.moe_w_swiglu_eD_F": (up, 2),
                f + "experts.moe_w_out_eF_D": (g("feed_forward.experts.down_proj"), 1),
                f + "w_in_shared_FD.weight": (g(s + "gate_proj.weight"), 0),
                f + "w_swiglu_FD.weight": (g(s + "up_proj.weight"), 0),
                f + "w_out_shared_DF.weight": (g(s + "down_proj.weight"), 1)}
    else:
        d = "feed_forward."
        if plain:
            out |= {f + "w1.weight": (g(d + "gate_proj.weight"), 0), f + "w3.weight": (g(d + "up_proj.weight"), 0),
                    f + "w2.weight": (g(d + "down_proj.weight"), 1)}
        else:
            out |= {f + "mlp.layer_norm_weight": (g("post_attention_layernorm.weight"), None),
                    f + "mlp.fc1_weight": ([g(d + "gate_proj.weight"), g(d + "up_proj.weight")], 0),
                    f + "mlp.fc2_weight": (g(d + "down_proj.weight"), 1)}
    return out


def vision(sd, layers):
    out = {}
    v = lambda n: sd["vision_model." + n]
    for ours, theirs, dim in (("patch_embedding.linear.weight", "conv1._linear.weight", 0), ("class_embedding", "class_embedding", None),
                              ("positional_embedding_vlm", "positional_embedding_vlm", None), ("layernorm_pre.weight", "ln_pre.weight", None),
                              ("layernorm_pre.bias", "ln_pre.bias", None), ("layernorm_post.weight", "ln_post.weight", None),
                              ("layernorm_post.bias", "ln_post.bias", None)):
        out[VISION + theirs] = (v(ours), dim)
    out["vision_embeddings.vision_adapter.mlp.c_fc.weight"] = (v("vision_adapter.mlp.fc1.weight"), 0)
    out["vision_embeddings.vision_adapter.mlp.c_proj.weight"] = (v("vision_adapter.mlp.fc2.weight"), 1)
    out["vision_projection.weight"] = (sd["multi_modal_projector.linear_1.weight"], 0)
    for i in range(layers):
        m, b = f"model.layers.{i}.", f"{VISION}transformer.resblocks.{i}."
        for x in "qkv":
            for w in ("weight", "bias"):
                out[f"{b}attn.w{x}.{w}"] = (v(f"{m}self_attn.{x}_proj.{w}"), 0)
        out[b + "attn.wo.weight"], out[b + "attn.wo.bias"] = (v(m + "self_attn.o_proj.weight"), 1), (v(m + "self_attn.o_proj.bias"), None)
        for w, dim in (("weight", 0), ("bias", 0)):
            out[f"{b}mlp.c_fc.{w}"] = (v(f"{m}mlp.fc1.{w}"), dim)
        out[b + "mlp.c_proj.weight"], out[b + "mlp.c_proj.bias"] = (v(m + "mlp.fc2.weight"), 1), (v(m + "mlp.fc2.bias"), None)
        for ours, theirs in (("input_layernorm", "ln_1"), ("post_attention_layernorm", "ln_2")):
            for w in ("weight", "bias"):
                out[f"{b}{theirs}.{w}"] = (v(f"{m}{ours}.{w}"), None)
    return out


def share(value, dim, shards, s):
    if not isinstance(value, list) and not torch.is_tensor(value):
        return value
    parts = value if isinstance(value, list) else [value]
    if dim is not None:
        parts = [p.chunk(shards, dim)[s] for p in parts]
    t = torch.cat(parts, 0)
    return (t.reshape(-1, t.shape[-1]) if t.dim() == 3 else t).contiguous().clone()


def pad(t, rows):
    return torch.cat([t, torch.zeros(rows - t.shape[0], t.shape[1], dtype=t.dtype)])


def write(source, out, shards, plain):
    config = json.loads((source / "config.json").read_text())
    sd = {}
    for f in sorted(source.glob("*.safetensors")):
        sd |= load_file(str(f))
    sd = {k.removeprefix("language_model."): v for k, v in sd.items()}
    t = config.get("text_config", config)
    if "vision_config" in config:
        t["vocab_size"] = 202048
        for k in ("model.embed_tokens.weight", "lm_head.weight"):
            sd[k] = pad(sd[k], t["vocab_size"])
    stored = {"tok_embeddings.weight": (sd["model.embed_tokens.weight"], 0), "norm.weight": (sd["model.norm.weight"], None),
              "output.weight": (sd["lm_head.weight"], 0), "rope.freqs": (torch.ones(4), None)}
    for i in range(t["num_hidden_layers"]):
        stored |= text_layer(sd, i, plain)
    if "vision_config" in config:
        stored |= vision(sd, config["vision_config"]["num_hidden_layers"])
    out.mkdir(parents=True)
    for s in range(shards):
        torch.save({k: share(v, d, shards, s) for k, (v, d) in stored.items()}, out / f"consolidated.{s:02}.pth")
    (out / "params.json").write_text(json.dumps(params_of(config)))


for n, job in enumerate(sys.argv[2:]):
    checkpoint, shards, *names = job.split(":")
    write(pathlib.Path(checkpoint), pathlib.Path(sys.argv[1]) / str(n), int(shards), names == ["plain"])
