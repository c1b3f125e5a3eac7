"""Writes tests/golden/io/expected.json: dtype, shape and a checksum of some tensors of tests/golden/data, as read by the
safetensors and gguf libraries. Run once: python tests/io/make_expected.py."""
import json
import pathlib

import gguf
import numpy as np
import torch
from safetensors import safe_open

ROOT = pathlib.Path(__file__).parent.parent / "golden"
DATA = ROOT / "data"
NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float8_e4m3fn: "F8_E4M3",
         torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8"}
rows = []


def checksum(data):
    data = np.frombuffer(data, np.uint8).astype(np.uint64)
    return int(np.sum(data * np.arange(1, data.size + 1, dtype=np.uint64)))


def add(path, name, dtype, shape, data, count):
    rows.append(dict(file=str(path.relative_to(DATA)), tensor=name, dtype=dtype, shape=list(shape), num_tensors=count,
                     checksum=checksum(data)))


def add_tensor(path, name, tensor, count):
    add(path, name, NAMES[tensor.dtype], tensor.shape, tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes(),
        count)


def pick(names):
    names = sorted(names)
    return [names[0], names[len(names) // 2], names[-1]]


for path in sorted(DATA.glob("ckpt/*/model.safetensors")) + sorted(DATA.glob("quant/*/model.safetensors")):
    with safe_open(path, "pt") as file:
        for name in pick(file.keys()):
            add_tensor(path, name, file.get_tensor(name), len(file.keys()))
for path in sorted(DATA.glob("ckpt/*/model.safetensors.index.json")):
    weight_map = json.loads(path.read_text())["weight_map"]
    for name in pick(weight_map):
        with safe_open(path.parent / weight_map[name], "pt") as file:
            add_tensor(path, name, file.get_tensor(name), len(weight_map))
for path in sorted(DATA.glob("gguf/*.gguf")):
    tensors = {t.name: t for t in gguf.GGUFReader(path).tensors}
    for name in pick(tensors):
        t = tensors[name]
        add(path, name, t.tensor_type.name, [int(n) for n in reversed(t.shape)], t.data.tobytes(), len(tensors))
(ROOT / "io/expected.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
