"""The model that ships: small, used when no other is named, and as good as its table says."""
import json
import os
import pathlib
import subprocess

import pytest

PUNA = os.environ["PUNA"]
SHIPPED = pathlib.Path(__file__).resolve().parents[2] / "models" / "puna-demo"
# A little below the table in the README, since other processors round otherwise.
FLOORS = {"arithmetic": 0.98, "lookup": 0.88, "pictures": 0.95, "puna": 0.76, "unknown": 0.88}


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
    tasks = json.loads(run("eval", SHIPPED, "--json").stdout)["tasks"]
    return {task["name"]: task["measures"]["accuracy"]["value"] for task in tasks}


@pytest.mark.parametrize("name", FLOORS)
def test_is_what_was_measured_when_it_was_shipped(results, name):
    assert results[name] >= FLOORS[name]


def test_answers_about_pictures_come_from_the_pictures(tmp_path):
    """The control: with the picture of the next question that has another answer, most answers are wrong."""
    lines = (SHIPPED / "eval" / "pictures.jsonl").read_text().splitlines()
    header, items = lines[0], [json.loads(line) for line in lines[1:]]

    def picture(item):
        return item["messages"][0]["content"][0]

    pictures = [next(picture(other) for other in items[i + 1:] + items[:i] if other["answer"] != item["answer"])
                for i, item in enumerate(items)]
    for item, other in zip(items, pictures):
        item["messages"][0]["content"][0] = other
    task = tmp_path / "others.jsonl"
    task.write_text("\n".join([header, *map(json.dumps, items)]) + "\n")
    [done] = json.loads(run("eval", "--model", SHIPPED, "--task", task, "--json").stdout)["tasks"]
    assert done["measures"]["accuracy"]["value"] < 0.4
