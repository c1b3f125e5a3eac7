"""What puna quantize writes, opened by transformers as compressed-tensors: every tensor found, and Puna's logits."""
import json
import os
import pathlib
import subprocess

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers")
pytest.importorskip("compressed_tensors", reason="needs compressed-tensors, by which transformers reads these models")
from safetensors.torch import load_file, save_file

PUNA = os.environ["PUNA"]
GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "data" / "ckpt"
TOKENS = 40
TOLERANCE = 2e-4  # logits up to 12 in FP32, summed in another order


def puna(*arguments):
    done = subprocess.run([PUNA, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def logits_of_transformers(folder, ids):
    config = json.loads((folder / "config.json").read_text())
    model, info = getattr(transformers, config["architectures"][0]).from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not {key: value for key, value in info.items() if value}
    with torch.no_grad():
        return model(input_ids=ids[None], use_cache=False).logits[0]


@pytest.mark.parametrize("checkpoint,preset", [("d_text", "int4"), ("d_text", "int8"), ("d_text", "fp8"), ("a_scout", "mixed"),
                                               ("a_scout", "fp8"), ("b_maverick", "int4"), ("c_top2", "int8"),
                                               ("d_text", "int2-g32"), ("b_maverick", "int3-g32")])
def test_transformers_computes_the_same_logits_from_quantised_weights(tmp_path, checkpoint, preset):
    torch.set_num_threads(1)
    rare = []
    if "-g" in preset:  # of half of the experts of each layer, the others int4
        layers, experts = {"d_text": (4, 4), "b_maverick": (4, 8)}[checkpoint]
        (tmp_path / "profile.json").write_text(json.dumps({"rows": [list(range(experts))] * layers}))
        rare = ["--rare-experts", preset, "--expert-profile", tmp_path / "profile.json", "--rare-max-error", 1]
    puna("quantize", "--model", GOLDEN / checkpoint, "--to", "int4" if rare else preset, "--out", tmp_path / "q", *rare)
    config = json.loads((tmp_path / "q" / "config.json").read_text())
    vocabulary = config.get("text_config", config)["vocab_size"]
    ids = torch.randint(0, vocabulary, (TOKENS,), generator=torch.Generator().manual_seed(1))
    ids[ids == config.get("image_token_index")] = 0
    save_file({"ids": ids}, tmp_path / "ids.safetensors")
    puna("golden", "--ckpt", tmp_path / "q", "--ids", tmp_path / "ids.safetensors", "--out", tmp_path / "out.safetensors",
         "--threads", 1)
    ours, theirs = load_file(tmp_path / "out.safetensors")["logits.all"], logits_of_transformers(tmp_path / "q", ids)
    assert ours.shape == theirs.shape == (TOKENS, vocabulary)
    assert float((ours - theirs).abs().max()) <= TOLERANCE
    # The original's are others, so this is about what was quantised.
    puna("golden", "--ckpt", GOLDEN / checkpoint, "--ids", tmp_path / "ids.safetensors", "--out", tmp_path / "dense.safetensors",
         "--threads", 1)
    assert float((load_file(tmp_path / "dense.safetensors")["logits.all"] - theirs).abs().max()) > 10 * TOLERANCE
