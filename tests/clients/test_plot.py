"""puna plot's pictures in a real XML parser and a real image library, and its messages."""
import json
import os
import subprocess
import xml.etree.ElementTree as ET

import pytest
from PIL import Image

PUNA = os.environ["PUNA"]


def puna(*args):
    return subprocess.run([PUNA, "plot", *map(str, args)], capture_output=True, text=True)


@pytest.fixture
def run(tmp_path):
    directory = tmp_path / "run <1> & more"
    directory.mkdir()
    with open(directory / "metrics.jsonl", "w") as file:
        for step in range(1, 41):
            line = {"step": step, "stage": "pretrain", "loss": 5 - step / 20, "grad_norm": 1.0, "learning_rate": 1e-3,
                    "position_loss": [4.0, 3.0, None], "experts": [{"layer": 1, "load": [0.5, 0.5], "max_violation": 0.0}]}
            file.write(json.dumps(line) + "\n")
        file.write(json.dumps({"step": 40, "eval": {"loss": 3.5}}) + "\n")
    return directory


def texts(path):
    return [element.text for element in ET.parse(path).iter("{http://www.w3.org/2000/svg}text")]


def test_svg_lies_beside_the_metrics_and_says_what_it_shows(run):
    done = puna(run)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"wrote {run}/plot.svg\n"
    shown = texts(run / "plot.svg")
    assert shown[0] == str(run) or shown[0].endswith("...")
    for label in ("Loss", "training", "evaluation", "Gradient norm", "Learning rate", "Loss by position",
                  "Expert load, layer 1", "Maximum violation"):
        assert label in shown


def test_png_opens_and_is_not_blank(run, tmp_path):
    out = tmp_path / "loss.png"
    assert puna(run, run, "--what", "loss,experts", "--out", out).returncode == 0
    image = Image.open(out).convert("RGB")
    assert image.width > 1000 and len(image.getcolors(1 << 24)) > 50


def test_a_line_cut_short_is_told_and_a_bad_one_is_named(run):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 41, "lo')
    done = puna(run, "--what", "loss")
    assert done.returncode == 0 and "metrics.jsonl:42 is cut short" in done.stderr
    with open(run / "metrics.jsonl", "a") as file:
        file.write("\n")
    done = puna(run)
    assert done.returncode == 1 and "metrics.jsonl:42]" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("more, status, part", [
    (["--what", "los"], 1, "did you mean 'loss'?"),
    (["--what", "images"], 1, "nothing to draw 'images' of"),
    (["--out", "picture.gif"], 1, ".svg or .png"),
    (["--smoothing", "nan"], 2, "--smoothing"),
    (["--smoothing", "1"], 2, "--smoothing"),
    (["/no/such/run"], 1, "/no/such/run"),
])
def test_errors_are_one_line(run, more, status, part):
    done = puna(run, *more)
    assert done.returncode == status and part in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not (run / "plot.svg").exists()
