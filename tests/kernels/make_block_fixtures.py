"""Writes tests/golden/kernels/blocks.safetensors: random GGUF blocks, hostile scales among them, and what gguf-py makes of
them; compressed-tensors int4 words and values. Run once: python tests/kernels/make_block_fixtures.py."""
import pathlib

import gguf
import numpy as np
import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.numpy import save_file

OUT = pathlib.Path(__file__).parent.parent / "golden/kernels/blocks.safetensors"
rng = np.random.default_rng(7)
# Where the binary16 scales of a block lie.
SCALES = {"Q4_0": [0], "Q8_0": [0], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}
HOSTILE = [0x7C00, 0xFC00, 0x7E00, 0x0001, 0x8000, 0x7BFF]  # inf, -inf, nan, smallest subnormal, -0, largest
out = {}
for name, places in SCALES.items():
    kind = gguf.GGMLQuantizationType[name]
    size = gguf.GGML_QUANT_SIZES[kind][1]
    blocks = rng.integers(0, 256, (8, size), dtype=np.uint8)
    for i, block in enumerate(blocks):
        for place in places:
            bits = np.float16(rng.normal() * 0.1).view(np.uint16) if i < 2 else np.uint16(HOSTILE[i - 2])
            block[place:place + 2] = np.frombuffer(bits.tobytes(), np.uint8)
    with np.errstate(all="ignore"):
        values = gguf.quants.dequantize(blocks, kind)
    out[f"{name}.blocks"], out[f"{name}.values"] = blocks, values.astype(np.float32).reshape(8, -1)

for name, dtype, count in (("F16", torch.float16, 65536), ("BF16", torch.bfloat16, 65536),
                           ("F8_E4M3", torch.float8_e4m3fn, 256), ("F8_E5M2", torch.float8_e5m2, 256)):
    bits = torch.arange(256).to(torch.uint8) if count == 256 else torch.arange(0, 65536, 97).to(torch.uint16)
    out[f"{name}.bits"], out[f"{name}.values"] = bits.numpy(), bits.view(dtype).float().numpy()

for cols in (8, 13, 32):
    q = torch.from_numpy(rng.integers(-8, 8, (5, cols), dtype=np.int8))
    out[f"int4.{cols}.packed"] = pack_to_int32(q, 4).numpy()
    out[f"int4.{cols}.values"] = q.numpy()
    out[f"int4_rows.{cols}.packed"] = pack_to_int32(q.T.contiguous(), 4, packed_dim=0).numpy()
    out[f"int4_rows.{cols}.values"] = q.T.contiguous().numpy()
OUT.parent.mkdir(exist_ok=True)
save_file(out, OUT)
