"""Weights that stay as they are stored: the shipped model as INT4, INT8, FP8 and BF16 still answers."""
import json
import os
import pathlib
import subprocess

import pytest

PUNA = os.environ["PUNA"]
SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "models" / "puna-demo"
ITEMS = 20  # the first of each task


def run(*arguments):
    return subprocess.run([PUNA, *map(str, arguments)], capture_output=True, text=True, check=True)


@pytest.fixture(scope="module", params=["int4", "int8", "fp8"])
def model(request, tmp_path_factory):
    out = tmp_path_factory.mktemp("quantised") / request.param
    run("quantize", "--model", SHIPPED, "--to", request.param, "--out", out)
    return out


def answers(model, form, out):
    tasks = [SHIPPED / "eval" / f"{name}.jsonl" for name in ("arithmetic", "puna")]
    shown = run("eval", "--model", model, "--weights", form, "--limit", ITEMS, "--items", out, "--json",
                *(part for task in tasks for part in ("--task", task)))
    accuracy = [task["measures"]["accuracy"]["value"] for task in json.loads(shown.stdout)["tasks"]]
    return accuracy, [json.loads(line)["answer"] for line in out.read_text().splitlines()]


def test_inspect_shows_what_is_held_as_stored(model):
    memory = json.loads(run("inspect", model, "--json").stdout)["memory"]
    assert memory["packed_bytes"] > 0 and memory["dequantised_bytes"] == 0
    assert "as they are stored, laid out for the kernels" in run("inspect", model).stdout


def test_answers_are_nearly_those_of_dense_weights(model, tmp_path):
    stored, texts = answers(model, "stored", tmp_path / "stored.jsonl")
    dense, others = answers(model, "dense", tmp_path / "dense.jsonl")
    assert len(texts) == len(others) == 2 * ITEMS
    assert sum(a == b for a, b in zip(texts, others)) >= 0.75 * len(texts)
    for a, b in zip(stored, dense, strict=True):
        assert a >= b - 0.2


def test_one_token_at_a_time_or_all_at_once_is_one_text(model):
    prompt = ["--model", model, "--prompt", "How do I train a model?", "--temperature", 0, "--max-tokens", 40]
    one = run("generate", *prompt, "--threads", 1).stdout
    assert one == run("generate", *prompt, "--threads", 2).stdout and one.strip()


def test_pack_is_made_beside_the_model_once_and_anew_when_the_model_changes(model):
    ask = ["generate", "--model", model, "--prompt", "How do I train a model?", "--temperature", 0, "--max-tokens", 40]
    plain, first = run(*ask).stdout, run(*ask, "--pack")
    packed = model.parent / (model.name + "-packed") / "packed.safetensors"
    assert first.stdout == plain and "Packing" in first.stderr
    made = packed.stat().st_mtime_ns
    second = run(*ask, "--pack")
    assert second.stdout == plain and "Packing" not in second.stderr and packed.stat().st_mtime_ns == made
    os.utime(model / "config.json")
    assert run(*ask, "--pack").stdout == plain and packed.stat().st_mtime_ns > made
    assert not [f for f in model.parent.iterdir() if ".tmp." in f.name]


def test_pack_refuses_a_model_without_what_kernels_multiply(tmp_path):
    wide = tmp_path / "fp32"
    run("convert", "--model", SHIPPED, "--to", "hf", "--dtype", "fp32", "--out", wide)
    refused = subprocess.run([PUNA, "generate", "--model", wide, "--prompt", "x", "--pack"], capture_output=True, text=True)
    assert refused.returncode != 0 and "no INT4, INT8, FP8 or BF16 weights" in refused.stderr


def test_bf16_is_packed_with_the_same_text(tmp_path):
    ask = ["--prompt", "How do I train a model?", "--temperature", 0, "--max-tokens", 40]
    assert "BF16" in run("pack", "--model", SHIPPED, "--out", tmp_path / "packed").stdout
    plain = run("generate", "--model", SHIPPED, *ask).stdout
    assert run("generate", "--model", tmp_path / "packed", *ask).stdout == plain and plain.strip()
