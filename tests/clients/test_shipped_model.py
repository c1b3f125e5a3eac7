"""The model that ships: small, used when no other is named, and as good as its table says."""
import json
import os
import pathlib
import subprocess

import pytest

PUNA = os.environ["PUNA"]
SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "models" / "puna-demo"
ITEMS = 60  # the first of each task
FLOORS = {"arithmetic": 0.93, "lookup": 0.82, "pictures": 0.9, "puna": 0.76, "unknown": 0.85}  # of these items


def run(*arguments):
    return subprocess.run([PUNA, *map(str, arguments)], capture_output=True, text=True, check=True)


def test_is_at_most_12_megabytes_with_all_its_files():
    assert sum(f.stat().st_size for f in SHIPPED.rglob("*") if f.is_file()) <= 12_000_000


def test_answers_when_no_model_is_named_and_says_so():
    done = run("generate", "--prompt", "How do I train a model?")
    assert "./puna train" in done.stdout
    assert done.stderr.count("\n") == 1 and "puna-demo" in done.stderr and "--model" in done.stderr


def test_describes_a_picture():
    picture = SHIPPED / "example.png"
    assert run("generate", "--image", picture, "--prompt", "What is in the picture?").stdout.strip() == \
        (SHIPPED / "example.txt").read_text().strip()


@pytest.fixture(scope="module")
def results():
    tasks = json.loads(run("eval", SHIPPED, "--limit", ITEMS, "--json").stdout)["tasks"]
    return {task["name"]: task["measures"]["accuracy"]["value"] for task in tasks}


@pytest.mark.parametrize("name", FLOORS)
def test_is_what_was_measured_when_it_was_shipped(results, name):
    assert results[name] >= FLOORS[name]
