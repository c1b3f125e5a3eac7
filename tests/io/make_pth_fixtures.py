"""Writes tests/golden/io/*.pth with torch itself; run once: python tests/io/make_pth_fixtures.py.

tensors.pth and tensors_p4.pth hold the same tensors, under pickle protocols 2 and 4; a = 0..23 as F32 [4, 6].
extra_state.pth has an entry that is no tensor, as Meta's checkpoints do; legacy.pth is the format before torch 1.6.
"""
import collections
import io
import pathlib

import torch

OUT = pathlib.Path(__file__).parent.parent / "golden/io"
a = torch.arange(24, dtype=torch.float32).reshape(4, 6)
tensors = collections.OrderedDict(
    f32=a,
    alias=a[1:3],
    transposed=a.t(),
    window=a[1:, 2:5],
    bf16=a.bfloat16(),
    f16=a.half(),
    f8=a.to(torch.float8_e4m3fn),
    i64=torch.arange(3),
    u16=torch.arange(3).to(torch.uint16),
    bool=torch.tensor([True, False]),
    parameter=torch.nn.Parameter(a),
    scalar=torch.tensor(3.0),
    empty=torch.zeros(0, 4),
)
torch.save(tensors, OUT / "tensors.pth")
torch.save(tensors, OUT / "tensors_p4.pth", pickle_protocol=4)
torch.save({"w": a, "norm._extra_state": io.BytesIO(b"abc")}, OUT / "extra_state.pth")
torch.save({"w": a}, OUT / "legacy.pth", _use_new_zipfile_serialization=False)
torch.save({"model": {"w": a}}, OUT / "nested.pth")
