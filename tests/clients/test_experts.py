"""--memory: the shipped model with two experts in memory at a time gives the text that it gives with all of them."""
import json
import os
import pathlib
import re
import subprocess

import pytest

PUNA = os.environ["PUNA"]
SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "models" / "puna-demo"
ASK = ["--prompt", "How do I train a model?", "--temperature", 0, "--max-tokens", 40, "--json", "--batch-invariant"]


def puna(*arguments):
    return subprocess.run([PUNA, *map(str, arguments)], capture_output=True, text=True)


def good(*arguments):
    done = puna(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    out = tmp_path_factory.mktemp("packed")
    good("quantize", "--model", SHIPPED, "--to", "int4", "--out", out / "int4")
    good("pack", "--model", out / "int4", "--out", out / "packed")
    return out / "packed"


def least(*command):
    """The least --memory that this command accepts, nearly; its refusal names it in whole MiB."""
    refused = puna(*command, "--memory", "1MiB")
    assert refused.returncode == 1 and refused.stderr.count("\n") == 1, refused.stderr
    named = 1024 * int(re.search(r"the least that works is --memory (\d+)MiB", refused.stderr).group(1))
    low, high = named - 1024, named
    while high - low > 64:  # less than an expert
        middle = (low + high) // 2
        works = puna(*command, "--memory", f"{middle}KiB").returncode == 0
        low, high = (low, middle) if works else (middle, high)
    return f"{high}KiB"


@pytest.fixture(scope="module")
def memory(packed):
    return least("generate", "--model", packed, *ASK)


def test_text_is_the_same_and_reads_are_counted(packed, memory):
    everything, streamed = (json.loads(good("generate", "--model", packed, *ASK, *more)) for more in ([], ["--memory", memory]))
    assert streamed["tokens"] == everything["tokens"] and len(streamed["tokens"]) > 5
    assert "experts" not in everything
    experts = streamed["experts"]
    assert experts["uses"] > 0 and 0 <= experts["hit_rate"] < 1 and experts["bytes_read"] > 0
    assert experts["useful_prefetches"] <= experts["prefetches"] and experts["predicted_right"] <= experts["predicted"]


def test_a_share_of_the_memory_and_what_it_cannot_be(packed):
    assert json.loads(good("generate", "--model", packed, *ASK, "--memory", "90%"))["tokens"]
    for wrong in ("much", "-3GiB", "0%"):
        refused = puna("generate", "--model", packed, *ASK, f"--memory={wrong}")
        assert refused.returncode == 2 and "--memory" in refused.stderr
    refused = puna("generate", "--model", SHIPPED, *ASK, "--memory", "2MiB")
    assert refused.returncode == 1 and "puna pack" in refused.stderr


def test_a_profile_warms_the_cache_and_changes_no_text(packed, memory, tmp_path):
    text, profile = tmp_path / "notes.txt", tmp_path / "notes.experts.json"
    text.write_text("How do I train a model? How do I quantise one? " * 20)
    count = ["experts", "profile", "--model", packed, "--text", text, "--out", profile]
    good(*count, "--memory", least(*count))
    rows = json.loads(profile.read_text())["rows"]
    assert len({sum(layer) for layer in rows}) == 1 and sum(rows[0]) > 100, "each token has one expert in every layer"
    good("experts", "profile", "--model", SHIPPED, "--text", text, "--out", tmp_path / "dense.json")
    dense = json.loads((tmp_path / "dense.json").read_text())["rows"]
    assert [sum(layer) for layer in dense] == [sum(layer) for layer in rows], "also of a model that is in memory"
    cold, warm = (json.loads(good("generate", "--model", packed, *ASK, "--memory", memory, *more))
                  for more in ([], ["--expert-profile", profile]))
    assert warm["tokens"] == cold["tokens"]
    profile.write_text('{"rows": [[1]]}')
    refused = puna("generate", "--model", packed, *ASK, "--memory", memory, "--expert-profile", profile)
    assert refused.returncode == 1 and "profile of this model" in refused.stderr


def test_rare_experts_in_two_bits_give_the_same_text_from_disk_as_from_memory(packed, tmp_path):
    text, profile = tmp_path / "notes.txt", tmp_path / "notes.experts.json"
    text.write_text("How do I train a model? How do I quantise one? " * 20)
    count = ["experts", "profile", "--model", packed, "--text", text, "--out", profile]
    good(*count, "--memory", least(*count))
    rows = json.loads(profile.read_text())["rows"]
    rare = ["--rare-experts", "int2-g32-asym", "--expert-profile", profile, "--rare-max-error", 0.5]
    report = json.loads(good("quantize", "--model", SHIPPED, "--to", "int4", "--out", tmp_path / "mixed", "--json", *rare))
    rare = report["rare_experts"]["experts"]
    assert len(rare) == sum(len(layer) // 2 for layer in rows) and {one["format"] for one in rare} == {"int2-g32-asym"}
    assert all(0.1 < one["error"] < 0.5 for one in rare)
    assert sum(one["rows"] for one in rare) < sum(map(sum, rows)) / 2
    assert "INT2" in good("inspect", tmp_path / "mixed") and "INT4" in good("inspect", tmp_path / "mixed")
    good("pack", "--model", tmp_path / "mixed", "--out", tmp_path / "packed")
    size = lambda folder: (folder / "packed.safetensors").stat().st_size
    assert size(tmp_path / "packed") < size(packed)
    command = ["generate", "--model", tmp_path / "packed", *ASK]
    plain, mapped, streamed = (json.loads(good(*one)) for one in (["generate", "--model", tmp_path / "mixed", *ASK], command,
                                                                  [*command, "--memory", least(*command)]))
    assert plain["tokens"] == mapped["tokens"] == streamed["tokens"] and len(plain["tokens"]) > 5
    assert streamed["experts"]["bytes_read"] > 0
