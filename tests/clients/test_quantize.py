"""Quantised and converted models: what other libraries read in them, what a text says of them, runs that are cut short."""
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import time

import gguf
import numpy
import pytest
import torch
from compressed_tensors.compressors.pack_quantized import helpers as packed
from compressed_tensors.quantization import QuantizationConfig
from safetensors import safe_open
from safetensors.torch import load_file

PUNA = os.environ["PUNA"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "models" / "puna-demo"
GOLDEN = ROOT / "tests" / "golden" / "data" / "ckpt"


def run(*arguments, status=0, **more):
    done = subprocess.run([PUNA, *map(str, arguments)], capture_output=True, text=True, **more)
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Text that the shipped model knows how to read: one part to calibrate on, one to measure with."""
    lines = (SHIPPED / "eval" / "lookup.jsonl").read_text().splitlines()[1:]
    prompts = [json.loads(line)["prompt"] for line in lines]
    folder = tmp_path_factory.mktemp("texts")
    (folder / "calibrate.txt").write_text("\n".join(prompts[50:]))
    (folder / "measure.txt").write_text("\n".join(prompts[:25]))
    return folder


def comparison(texts, out, *more):
    done = run("quantize", "--model", SHIPPED, "--out", out, "--text", texts / "measure.txt", "--json", "--threads", 1, *more)
    report = json.loads(done.stdout)
    name = "quantization_report.json" if out.is_dir() else out.name + ".report.json"
    assert json.loads(((out if out.is_dir() else out.parent) / name).read_text()) == report
    return report["comparison"]


def test_calibration_brings_the_output_nearer_on_a_text_that_it_has_not_seen(texts, tmp_path):
    plain = comparison(texts, tmp_path / "plain", "--to", "int4")
    calibrated = comparison(texts, tmp_path / "calibrated", "--to", "int4", "--calibrate", texts / "calibrate.txt")
    assert calibrated["mean_kl"] < 0.9 * plain["mean_kl"]
    assert plain["tokens"] == calibrated["tokens"] > 1000
    assert 0 < plain["mean_kl"] < plain["p99_kl"]


def test_eight_bits_are_nearer_than_four_and_the_original_is_itself(texts, tmp_path):
    eight = comparison(texts, tmp_path / "eight.gguf", "--to", "q8_0", "--format", "gguf")
    four = comparison(texts, tmp_path / "four.gguf", "--to", "q4_0", "--format", "gguf")
    assert eight["mean_kl"] < 0.1 * four["mean_kl"] and eight["top1_agreement"] > four["top1_agreement"]
    itself = json.loads(run("compare", "--model", SHIPPED, "--other", SHIPPED, "--text", texts / "measure.txt", "--json").stdout)
    assert itself["mean_kl"] == itself["p99_kl"] == 0 and itself["top1_agreement"] == 1
    assert itself["perplexity"] == itself["reference_perplexity"] == pytest.approx(four["reference_perplexity"])


@pytest.mark.parametrize("preset,block", [("q8_0", "Q8_0"), ("q4_0", "Q4_0"), ("q4_k", "Q4_K")])
def test_the_gguf_library_reads_the_same_weights(tmp_path, preset, block):
    out = tmp_path / "x.gguf"
    run("quantize", "--model", SHIPPED, "--to", preset, "--format", "gguf", "--out", out)
    run("convert", "--model", SHIPPED, "--to", "gguf", "--dtype", "fp32", "--out", tmp_path / "dense.gguf")
    tensors = {t.name: t for t in gguf.GGUFReader(out).tensors}
    dense = {t.name: t for t in gguf.GGUFReader(tmp_path / "dense.gguf").tensors}
    assert tensors.keys() == dense.keys()
    seen = set()
    for name, tensor in tensors.items():
        kind = tensor.tensor_type
        seen.add(kind.name)
        got = gguf.quants.dequantize(tensor.data, kind).reshape(-1).astype(numpy.float64)
        want = gguf.quants.dequantize(dense[name].data, dense[name].tensor_type).reshape(-1)
        error = numpy.linalg.norm(got - want) / numpy.linalg.norm(want)
        assert error <= {"F32": 0, "BF16": 0, "Q8_0": 0.01, "Q4_0": 0.12, "Q4_K": 0.1}[kind.name], (name, error)
    assert block in seen


def test_gguf_keys_and_tokenizer_are_those_of_llama_cpp(tmp_path):
    # The shipped model's weights under the rules that llama.cpp has for this architecture.
    model = tmp_path / "model"
    model.mkdir()
    for file in SHIPPED.iterdir():
        if file.is_file():
            (model / file.name).symlink_to(file)
    config = json.loads((SHIPPED / "config.json").read_text())
    text = config["text_config"]
    text.update(no_rope_layer_interval=4, no_rope_layers=[1, 1, 1, 0, 1, 1], use_qk_norm=True, attention_chunk_size=8192,
                floor_scale=8192)
    text.pop("layer_types")
    (model / "config.json").unlink()
    (model / "config.json").write_text(json.dumps(config))
    said = run("convert", "--model", model, "--to", "gguf", "--out", tmp_path / "x.gguf").stderr
    assert "llama.cpp" not in said and "vision" in said
    reader = gguf.GGUFReader(tmp_path / "x.gguf")
    value = lambda key: reader.fields[key].contents()
    assert value("general.architecture") == "llama4" and value("tokenizer.ggml.pre") == "llama4"
    assert len(value("tokenizer.ggml.tokens")) == 2048 == value("llama4.vocab_size")
    assert value("tokenizer.ggml.tokens")[value("tokenizer.ggml.eos_token_id")] == "<|eot|>"
    known = set(value("tokenizer.ggml.tokens"))
    assert all(left + right in known for left, right in (merge.split(" ") for merge in value("tokenizer.ggml.merges")))
    own = run("convert", "--model", SHIPPED, "--to", "gguf", "--out", tmp_path / "own.gguf").stderr
    assert "llama.cpp cannot run this model" in own and "use_qk_norm" in own
    assert gguf.GGUFReader(tmp_path / "own.gguf").fields["general.architecture"].contents() == "llama4-puna"


def test_a_model_comes_back_from_gguf_as_it_was(tmp_path):
    run("convert", "--model", SHIPPED, "--to", "gguf", "--out", tmp_path / "x.gguf")
    run("convert", "--model", tmp_path / "x.gguf", "--to", "hf", "--out", tmp_path / "hf")
    before, after = (safe_open(path / "model.safetensors", "np") for path in (SHIPPED, tmp_path / "hf"))
    prompt = ("generate", "--prompt", "How do I train a model?", "--temperature", 0, "--threads", 1)
    answers = {run(*prompt, "--model", model).stdout for model in (SHIPPED, tmp_path / "x.gguf", tmp_path / "hf")}
    assert len(answers) == 1
    assert {k.removeprefix("language_model.") for k in before.keys() if k.startswith("language_model.")} == set(after.keys())


@pytest.mark.parametrize("preset,rare", [("int4", None), ("int8", None), ("fp8", None), ("mixed", None),
                                         ("int4", "int2-g32-asym"), ("int4", "int3-g32"), ("int4", "int3-g32-asym")])
def test_compressed_tensors_reads_the_same_weights(tmp_path, preset, rare):
    (tmp_path / "profile.json").write_text(json.dumps({"rows": [[1, 4, 2, 3]] * 4}))
    run("quantize", "--model", GOLDEN / "d_text", "--to", preset, "--out", tmp_path / "q",
        *(["--rare-experts", rare, "--expert-profile", tmp_path / "profile.json", "--rare-max-error", 0.6] if rare else []))
    run("convert", "--model", tmp_path / "q", "--to", "hf", "--dtype", "fp32", "--out", tmp_path / "dense")
    stored, dense = (load_file(tmp_path / name / "model.safetensors") for name in ("q", "dense"))
    config = json.loads((tmp_path / "q" / "config.json").read_text())["quantization_config"]
    parsed = QuantizationConfig.model_validate(config)
    assert parsed.quant_method == "compressed-tensors" and parsed.config_groups
    checked, bits_of = 0, {}
    for name, scale in stored.items():
        if not name.endswith(".weight_scale"):
            continue
        module = name.removesuffix(".weight_scale")
        if module + ".weight_packed" in stored:
            shape = torch.Size(stored[module + ".weight_shape"].tolist())
            bits = 32 * stored[module + ".weight_packed"].shape[1] // shape[1]
            bits_of[module] = bits
            values = packed.unpack_from_int32(stored[module + ".weight_packed"], bits, shape).float()
            if module + ".weight_zero_point" in stored:
                zeros = torch.Size([shape[0], scale.shape[1]])
                values -= packed.unpack_from_int32(stored[module + ".weight_zero_point"], bits, zeros, packed_dim=0).float(
                    ).repeat_interleave(shape[1] // scale.shape[1], 1)
        else:
            values = stored[module + ".weight"].float()
        weights = values * scale.float().repeat_interleave(values.shape[1] // scale.shape[1], 1)
        if ".experts." in module:
            experts, expert, projection = module.rsplit(".", 2)
            row = dense[experts + (".down_proj" if projection == "down_proj" else ".gate_up_proj")][int(expert)].t()
            half = row.shape[0] // 2
            want = row if projection == "down_proj" else row[:half] if projection == "gate_proj" else row[half:]
        else:
            want = dense[module + ".weight"]
        assert torch.equal(weights, want), module
        checked += 1
    assert checked > 20
    for module, bits in bits_of.items():
        is_rare = rare and re.search(r"experts\.[02]\.", module)
        assert bits == (int(rare[3]) if is_rare else 8 if preset == "int8" or preset == "mixed" and ".experts." not in module else 4)


def test_a_killed_run_goes_on_to_the_same_files(tmp_path, texts):
    arguments = ("quantize", "--model", SHIPPED, "--to", "int4", "--calibrate", texts / "calibrate.txt", "--threads", 1)
    run(*arguments, "--out", tmp_path / "whole")
    started = subprocess.Popen([PUNA, *map(str, arguments), "--out", tmp_path / "killed"], stderr=subprocess.DEVNULL)
    while started.poll() is None and not list((tmp_path / "killed").glob("*.tmp.*")):
        time.sleep(0.002)
    started.send_signal(signal.SIGKILL)
    started.wait()
    assert not (tmp_path / "killed" / "config.json").exists()
    run(*arguments, "--out", tmp_path / "killed")
    names = {f.name for f in (tmp_path / "whole").iterdir()}
    assert {f.name for f in (tmp_path / "killed").iterdir()} == names
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.parametrize("arguments", [("--to", "int4", "--out", "out"), ("--to", "q8_0", "--format", "gguf", "--out", "x.gguf")])
def test_a_write_that_fails_is_told_and_leaves_no_model(tmp_path, arguments):
    limit = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)), "restore_signals": False}
    said = run("quantize", "--model", SHIPPED, *arguments, status=1, cwd=tmp_path, **limit).stderr
    assert "limit on the size of files" in said.splitlines()[-1]
    left = {f.name for f in tmp_path.rglob("*") if f.is_file()}
    assert left <= {"quantize_state.json"} | {name for name in left if name.startswith(".")}, left


@pytest.mark.parametrize("arguments,part", [
    (("--to", "q4_0", "--out", "x"), "--format gguf"),
    (("--to", "int4", "--format", "gguf", "--out", "x.gguf"), "q8_0, q4_0 or q4_k"),
    (("--to", "q4_9", "--format", "gguf", "--out", "x.gguf"), "q4_0"),
    (("--to", "int4", "--out", "x", "--text", "nowhere.txt"), "nowhere.txt"),
    (("--to", "int4", "--out", "x", "--calibrate", "nowhere.txt"), "nowhere.txt"),
    (("--to", "int4", "--out", "x", "--calibrate", "empty.txt"), "no tokens"),
    (("--to", "int4", "--out", "x", "--rare-experts", "int2-g32"), "--expert-profile"),
    (("--to", "int4", "--out", "x", "--rare-share", "0.5"), "--rare-experts"),
    (("--to", "int4", "--out", "x", "--rare-experts", "int2-g32", "--expert-profile", "empty.txt"), "empty.txt"),
    (("--to", "int4", "--out", "x", "--rare-experts", "int2-g23", "--expert-profile", SHIPPED / "config.json"), "int2-g32"),
    (("--to", "int4", "--out", "x", "--rare-experts", "int2-g32", "--expert-profile", SHIPPED / "config.json"), "no profile"),
    (("--to", "q4_0", "--format", "gguf", "--out", "x.gguf", "--rare-experts", "int2-g32", "--expert-profile", "empty.txt"), "GGUF"),
])
def test_what_cannot_be_done_is_said_in_one_line_before_anything_is_written(tmp_path, arguments, part):
    (tmp_path / "empty.txt").write_text("")
    done = subprocess.run([PUNA, "quantize", "--model", SHIPPED, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode in (1, 2) and part in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == ["empty.txt"]
