"""--batch-invariant through the program: the same bits alone and among others, with one thread and two, for weights and caches of
every form. In FP32, where the sums of LibTorch's products depend on rows and threads: without the option this fails."""
import json
import os
import pathlib
import subprocess

import pytest

PUNA = os.environ["PUNA"]
SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "models" / "puna-demo"
WORDS = "the river and a stone were on their way to town when it began to rain ".split()
LINES = [{"prompt": " ".join(WORDS[(5 * i + 3 * j) % len(WORDS)] for j in range(30 + 17 * i)), "max_tokens": 24, "n": 1 + i % 2} for i in range(6)]
ASKED = 3  # the line that is compared; it has the most to share a step with


def run(*arguments):
    return subprocess.run([PUNA, *map(str, arguments)], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module", params=["dense", "int4", "int8"])
def model(request, tmp_path_factory):
    if request.param == "dense":
        return SHIPPED
    out = tmp_path_factory.mktemp("quantised") / request.param
    run("quantize", "--model", SHIPPED, "--to", request.param, "--out", out)
    return out


def answers(model, lines, file, threads, *more):
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    shown = run("generate", "--model", model, "--prompts", file, "--batch-invariant", "--logprobs", 3, "--temperature", 0,
                "--ignore-stop-tokens", "--dtype", "fp32", "--threads", threads, *more)
    return [json.loads(line) for line in shown.splitlines()]


@pytest.mark.parametrize("cache", [(), ("--int8-cache",)], ids=["cache", "int8_cache"])
def test_bits_are_the_same_alone_in_a_crowd_and_on_any_threads(model, cache, tmp_path):
    alone = answers(model, [LINES[ASKED]], tmp_path / "one.jsonl", 1, *cache)[0]
    assert len(alone["logprobs"]) == 24
    for threads in (1, 2):
        crowd = answers(model, LINES, tmp_path / "all.jsonl", threads, *cache)[ASKED]
        assert crowd["tokens"] == alone["tokens"] and crowd["logprobs"] == alone["logprobs"], threads
