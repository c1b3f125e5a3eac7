"""Ctrl-C while text is turned into a vocabulary or a dataset: status 130 soon, and the same command goes on."""
import os
import pathlib
import random
import signal
import subprocess
import time

import pytest
from train_support import PUNA, train, write_recipe


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "many.jsonl"
    rng = random.Random(1)
    word = lambda: "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=8))
    path.write_text("".join('{"text": "%s"}\n' % " ".join(word() for _ in range(6)) for _ in range(100000)))
    return path


def catches_interrupts(process):
    status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("SigCgt:")[1].split()[0], 16) >> (signal.SIGINT - 1) & 1


def interrupt(command, begun=lambda: True):
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (catches_interrupts(process) and begun()):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)
    assert process.returncode == 130, (process.returncode, said)


def files(out):
    return {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_a_vocabulary(text, tmp_path):
    interrupt([PUNA, "tokenizer", "train", "--vocab-size", 200000, "--min-frequency", 1, "--specials", "compact", "--out",
               tmp_path / "tokenizer", text])
    assert os.listdir(tmp_path) == []


def test_a_dataset(text, tmp_path):
    tokenizer, out = tmp_path / "tokenizer", tmp_path / "data"
    subprocess.run([PUNA, "tokenizer", "train", "--vocab-size", "300", "--specials", "compact", "--out", tokenizer, text], check=True,
                   capture_output=True)
    command = [PUNA, "data", "build", "--tokenizer", tokenizer, "--out", out, text]
    interrupt(command, (out / "dataset.partial.json").exists)
    assert not (out / "dataset.json").exists()
    subprocess.run(command, check=True, capture_output=True)
    command[command.index(out)] = tmp_path / "whole"
    subprocess.run(command, check=True, capture_output=True)
    assert files(out) == files(tmp_path / "whole")


def test_a_run_that_still_reads_its_sources(text, tmp_path):
    recipe, out = write_recipe(tmp_path), tmp_path / "run"
    recipe.write_text(recipe.read_text().replace("notes.txt", str(text)))
    command = [PUNA, "train", recipe, f"out={out}", "--max-steps", "1"]
    interrupt(command, (out / "recipe.json").exists)
    assert not (out / "tokenizer").exists()
    interrupt(command, (out / "data" / "notes" / "dataset.partial.json").exists)
    assert not (out / "metrics.jsonl").exists()
    train(recipe, out, "--resume", "--max-steps", 1)
