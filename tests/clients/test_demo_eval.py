"""The evaluation that ships with the demo model is what tools/make_demo_eval.py makes of the sources."""

import base64
import json
import os
import pathlib
import struct
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "models" / "puna-demo" / "eval"
ITEMS = {"puna": 150, "pictures": 200, "arithmetic": 300, "lookup": 150, "unknown": 100}


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    out = tmp_path_factory.mktemp("eval")
    script = ROOT / "tools" / "make_demo_eval.py"
    subprocess.run([sys.executable, str(script), os.environ["PUNA"], str(out)], check=True, cwd=ROOT)
    return out


def image_of(line):
    parts = line.get("messages", [{"content": []}])[0]["content"]
    return [base64.b64decode(part.pop("data")) for part in parts if part["type"] == "image"]


@pytest.mark.parametrize("name", ITEMS)
def test_shipped_tasks_are_those_of_the_sources(made, name):
    shipped, new = lines_of(SHIPPED / f"{name}.jsonl"), lines_of(made / f"{name}.jsonl")
    assert len(shipped) == len(new) > ITEMS[name]
    assert 0.85 <= shipped[0]["task"]["threshold"] <= 0.95
    for one, other in zip(shipped, new):
        # Another cairo or zlib may write other bytes of the same picture.
        pictures, others = image_of(one), image_of(other)
        assert [struct.unpack(">II", p[16:24]) for p in pictures] == [struct.unpack(">II", p[16:24]) for p in others]
        assert one == other


def test_questions_are_asked_once():
    for name in ("puna", "unknown"):
        questions = [line["prompt"] for line in lines_of(SHIPPED / f"{name}.jsonl")[1:]]
        assert len(questions) == len(set(questions))
