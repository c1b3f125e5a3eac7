"""Quantises a golden checkpoint's linears in ways that the golden set lacks, packed by compressed-tensors itself.

    make_quant_fixture.py CHECKPOINT OUT SCHEME ...

SCHEMEs: pack4_channel, pack8_group_asym, int8_channel, int8_tensor_asym, fp8_tensor, fp8_block, fp8_fbgemm_linear.
OUT/<scheme> gets config.json, model.safetensors and expected.safetensors (fp32 values under the names of the linears' weights).
"""
import json, pathlib, sys
import torch
from compressed_tensors.compressors import pack_to_int32
from safetensors.torch import load_file, save_file

BLOCK = (24, 40)  # divides no weight evenly


def blocks_of(scheme, o, i):
    """Rows and columns that share a scale."""
    if "tensor" in scheme:
        return o, i
    if "group" in scheme:
        return 1, 32
    return BLOCK if "block" in scheme else (1, i)


def spread(x, o, i, r, c):
    return x.repeat_interleave(r, 0)[:o].repeat_interleave(c, 1)[:, :i]


def quantise(scheme, w):
    """q (as stored), scale, zero or None, value."""
    o, i = w.shape
    r, c = blocks_of(scheme, o, i)
    bits, symmetric = 4 if "pack4" in scheme else 8, "asym" not in scheme
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    tiles = [[w[a:a + r, b:b + c] for b in range(0, i, c)] for a in range(0, o, r)]
    reduce = lambda f: torch.tensor([[f(t) for t in row] for row in tiles])
    limit = 448.0 if scheme.startswith("fp8") else high + 0.5
    scale = (reduce(lambda t: t.abs().max().item()) / limit).clamp(min=1e-8).bfloat16().float()
    full = spread(scale, o, i, r, c)
    if scheme.startswith("fp8"):
        q = (w / full).clamp(-448, 448).to(torch.float8_e4m3fn)
        return q, scale, None, q.float() * full
    zero = torch.randint(low // 2, high // 2, scale.shape) if not symmetric else torch.zeros(scale.shape, dtype=torch.int64)
    z = spread(zero, o, i, r, c)
    q = torch.clamp(torch.round(w / full) + z, low, high)
    return q.to(torch.int8), scale, None if symmetric else zero.to(torch.int8), (q - z).float() * full


def write(source, out, scheme):
    out.mkdir(parents=True)
    bits, symmetric = 4 if "pack4" in scheme else 8, "asym" not in scheme
    sd, stored, expected = load_file(str(source / "model.safetensors")), {}, {}
    for k, t in sd.items():
        if ".self_attn." not in k or "vision" in k:
            stored[k] = t
            continue
        q, scale, zero, expected[k] = quantise(scheme, t.float())
        base = k.removesuffix("weight")
        if scheme.startswith("pack"):
            stored[base + "weight_packed"] = pack_to_int32(q, bits)
            stored[base + "weight_shape"] = torch.tensor(q.shape)
            if zero is not None:
                stored[base + "weight_zero_point"] = pack_to_int32(zero, bits, packed_dim=0)
        else:
            stored[k] = q
            if zero is not None:
                stored[base + "weight_zero_point"] = zero
        stored[base + "weight_scale"] = scale.reshape(1) if "tensor" in scheme else scale.bfloat16()
    config = json.loads((source / "config.json").read_text())
    if "fbgemm" in scheme:
        config["quantization_config"] = {"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["feed_forward", "lm_head", "vision_model",
                                                                                                     "multi_modal_projector"]}
    else:
        strategy = next(s for s in ("channel", "group", "tensor", "block") if s in scheme)
        weights = {"num_bits": bits, "type": "float" if scheme.startswith("fp8") else "int", "symmetric": symmetric, "strategy": strategy,
                   "group_size": 32 if strategy == "group" else None, "block_structure": list(BLOCK) if strategy == "block" else None}
        form = "pack-quantized" if scheme.startswith("pack") else "int-quantized" if scheme.startswith("int") else "float-quantized"
        # Explicit names instead of patterns, as some writers store them.
        targets = [k.removesuffix(".weight") for k in expected]
        config["quantization_config"] = {"quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed",
                                         "config_groups": {"group_0": {"targets": targets, "weights": weights}}, "ignore": []}
    (out / "config.json").write_text(json.dumps(config))
    save_file(stored, str(out / "model.safetensors"))
    save_file(expected, str(out / "expected.safetensors"))


torch.manual_seed(1)
for name in sys.argv[3:]:
    write(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]) / name, name)
