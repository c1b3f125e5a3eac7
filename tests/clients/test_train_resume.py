"""puna train goes on to the same bits however it was stopped: SIGKILL at any moment, Ctrl-C, a damaged checkpoint, a full disk."""
import os
import pathlib
import random
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest
import torch
from safetensors import safe_open
from train_support import PUNA, checkpoints, command, train, write_recipe

KILLS = 30


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def whole(recipe, tmp_path_factory):
    """The run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(recipe, out)
    return out


def tensors(folder):
    found = {}
    for file in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():
                tensor = opened.get_tensor(name)
                found[name] = (str(tensor.dtype), tuple(tensor.shape), tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    assert found, folder
    return found


def expect_same_run(out, whole):
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert checkpoints(out)[-1].name == checkpoints(whole)[-1].name
    assert tensors(checkpoints(out)[-1]) == tensors(checkpoints(whole)[-1])
    assert tensors(out / "model") == tensors(whole / "model")
    names = lambda folder: sorted(p.name for p in (folder / "model").iterdir())
    assert names(out) == names(whole)
    for name in names(out):
        assert (out / "model" / name).read_bytes() == (whole / "model" / name).read_bytes(), name
    assert (out / "checkpoints" / "latest").read_text().strip() == checkpoints(out)[-1].name


def lines(out):
    try:
        return (out / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def saving(out):
    try:
        return any(p.name.endswith(".tmp") for p in (out / "checkpoints").iterdir())
    except FileNotFoundError:
        return False


def kill_when(process, due):
    """Kills the process once due(seconds since the start) holds; False when it ended before."""
    start = time.monotonic()
    while process.poll() is None:
        if due(time.monotonic() - start):
            process.kill()
            return process.wait() == -signal.SIGKILL
        time.sleep(0.0005)
    assert process.returncode == 0, process.stderr.read()
    return False


def test_thirty_kills_change_no_bit(recipe, whole, tmp_path):
    rng = random.Random(11)
    out = tmp_path / "run"
    kills = {"start": 0, "step": 0, "save": 0}
    startup = 0.5
    while sum(kills.values()) < KILLS:
        kind = rng.choice(["start", "step", "step", "save", "save"])
        wait, ahead, before = rng.uniform(0, 1.5 * startup), rng.randint(1, 3), lines(out)
        # A resumed run cuts the metrics back first, so that a line more than the checkpoint's is one of its own.
        resume = ["--resume"] if (out / "recipe.json").exists() else []
        saved = int(checkpoints(out)[-1].name[5:]) if out.exists() and checkpoints(out) else 0
        process = subprocess.Popen(command(recipe, out, *resume), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        began = time.monotonic()
        if kind == "start":
            killed = kill_when(process, lambda seconds: seconds > wait)
        elif kind == "step":
            cut = [before == saved]

            def due(_seconds):
                now = lines(out)
                cut[0] = cut[0] or now <= saved
                return cut[0] and now >= saved + ahead
            killed = kill_when(process, due)
        else:
            pause = rng.choice([0, 0.001, 0.003, 0.01])

            def due(_seconds):
                if not saving(out):
                    return False
                time.sleep(pause)
                return True
            killed = kill_when(process, due)
        process.stderr.close()
        assert killed, f"the run was over after {kills}; it needs more steps"
        kills[kind] += 1
        if kind != "start":
            startup = 0.5 * startup + 0.5 * (time.monotonic() - began)
    assert min(kills.values()) >= 3, kills
    train(recipe, out, "--resume")
    expect_same_run(out, whole)


def test_kills_change_no_bit_of_a_bfloat16_run_on_two_threads(recipe, tmp_path):
    settings = ["precision=bfloat16", "threads=2", "recompute=true", "source.arithmetic.validation=true",
                "validation.every=10", "validation.tokens=1000"]
    whole, out = tmp_path / "whole", tmp_path / "run"
    train(recipe, whole, *settings)
    for step in (7, 33, 52):
        resume = ["--resume"] if out.exists() else []
        process = subprocess.Popen(command(recipe, out, *settings, *resume), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        assert kill_when(process, lambda _seconds: lines(out) >= step)
        process.stderr.close()
    train(recipe, out, *settings, "--resume")
    expect_same_run(out, whole)


def test_a_kill_during_the_export_is_made_good(recipe, whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    (out / "model" / "config.json").unlink()  # as written by a program that was killed in the middle of it
    shutil.move(out / "model", out / "model.tmp")
    train(recipe, out, "--resume")
    expect_same_run(out, whole)


def test_a_finished_run_stays_as_it_is(recipe, whole, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    train(recipe, out, "--resume")
    expect_same_run(out, whole)
    manifest = checkpoints(out)[-1].name
    for file in (whole / "checkpoints" / manifest).iterdir():
        assert (out / "checkpoints" / manifest / file.name).read_bytes() == file.read_bytes(), file.name


def test_ctrl_c_saves_and_exits_with_130(recipe, whole, tmp_path):
    out = tmp_path / "run"
    process = subprocess.Popen(command(recipe, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while lines(out) < 5:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "--resume" in said
    assert int(checkpoints(out)[-1].name[5:]) == lines(out), "the last step was saved"
    train(recipe, out, "--resume")
    expect_same_run(out, whole)


def test_the_checkpoint_before_a_damaged_one_is_used(recipe, whole, tmp_path):
    out = tmp_path / "run"
    train(recipe, out, "--max-steps", 7)
    newest = checkpoints(out)[-1]
    assert newest.name == "step-00000007"
    shard = next(newest.glob("*.safetensors"))
    content = bytearray(shard.read_bytes())
    content[-100] ^= 1
    shard.write_bytes(content)
    said = train(recipe, out, "--resume")
    assert str(shard) in said and "after step 6" in said, said
    expect_same_run(out, whole)


def test_a_changed_recipe_is_refused_by_key(recipe, tmp_path):
    out = tmp_path / "run"
    train(recipe, out, "--max-steps", 3)
    said = train(recipe, out, "optimizer.beta1=0.8", "--resume", status=1)
    assert re.search(r"stage/0/optimizer/beta1 was 0.9, is 0.8", said), said
    said = train(recipe, out, status=1)
    assert "holds a run already" in said and "--resume" in said
    said = train(recipe, tmp_path / "none", "--resume", status=1)
    assert "holds no run to resume" in said
    train(recipe, out, "checkpoint.every=3", "threads=1", "--resume", "--max-steps", 1)


def test_sources_may_change_and_go_once_a_run_has_begun(tmp_path):
    (tmp_path / "own").mkdir()
    recipe = write_recipe(tmp_path / "own")
    notes = tmp_path / "own" / "notes.txt"
    train(recipe, tmp_path / "whole", "--max-steps", 6)
    for change in (lambda: os.utime(notes, (1, 1)), lambda: notes.write_text("Other words. " * 200), notes.unlink):
        out = tmp_path / "run"
        shutil.copytree(tmp_path / "whole", out)
        for checkpoint in checkpoints(out)[1:]:
            shutil.rmtree(checkpoint)
        change()
        train(recipe, out, "--resume", "--max-steps", 6 - int(checkpoints(out)[0].name[5:]))
        assert (out / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
        shutil.rmtree(out)


def test_changed_data_are_refused(tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    recipe = write_recipe(own)
    out = tmp_path / "run"
    train(recipe, out, "--max-steps", 3)
    (own / "notes.txt").write_text("Other words. " * 200)
    shutil.rmtree(out / "tokenizer")
    said = train(recipe, out, "--resume", status=1)
    assert str(out / "data" / "notes") in said, said
    shutil.rmtree(out / "data")
    said = train(recipe, out, "--resume", status=1)
    assert "source 'notes'" in said or "source 'arithmetic'" in said, said


def test_a_full_disk_stops_the_run_and_loses_nothing(recipe, whole, tmp_path):
    out = tmp_path / "run"
    train(recipe, out, "--max-steps", 4)
    size = next(checkpoints(out)[-1].glob("*.safetensors")).stat().st_size
    limited = {"restore_signals": False, "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, size // 2))}
    said = train(recipe, out, "--resume", status=1, **limited)
    assert "was not saved" in said and "--resume" in said, said
    assert [p.name for p in checkpoints(out)][-1] == "step-00000004"
    train(recipe, out, "--resume")
    expect_same_run(out, whole)


def test_every_stage_is_checked_before_the_first_step(recipe, tmp_path):
    said = train(recipe, tmp_path / "run", "stage.long.batch.sequence_length=1024", "stage.long.batch.tokens=1024", status=1)
    assert "stage 'long'" in said and "512" in said, said
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_run_goes_on_and_is_exported_without_the_model_that_it_began_with(whole, tmp_path):
    (tmp_path / "own").mkdir()
    shutil.copytree(whole / "model", tmp_path / "own" / "from")
    (tmp_path / "own" / "from" / "generation_config.json").write_text('{"temperature": 0.25}')
    recipe = tmp_path / "own" / "small.toml"
    recipe.write_text('seed = 1\nthreads = 1\nsteps = 4\n[model]\nfrom = "from"\n[checkpoint]\nevery = 2\n'
                      '[[source]]\nname = "pictures"\ngenerate = "pictures"\ndocuments = 20\n')
    train(recipe, tmp_path / "all")
    out = tmp_path / "run"
    train(recipe, out, "--max-steps", 2)
    shutil.rmtree(tmp_path / "own" / "from")
    train(recipe, out, "--resume", "--max-steps", 1)
    subprocess.run([PUNA, "export", out, "--out", tmp_path / "early"], check=True, capture_output=True)
    train(recipe, out, "--resume")
    expect_same_run(out, tmp_path / "all")
    files = {p.name for p in (tmp_path / "early").iterdir()}
    assert files == {p.name for p in (out / "model").iterdir()} >= {"tokenizer.json", "chat_template.jinja", "preprocessor_config.json"}
    assert '"temperature": 0.25' in (tmp_path / "early" / "generation_config.json").read_text()


def test_a_copied_config_that_was_changed_is_not_gone_on_with(whole, tmp_path):
    recipe, out = tmp_path / "small.toml", tmp_path / "run"
    recipe.write_text(f'seed = 1\nthreads = 1\nsteps = 4\n[model]\nfrom = "{whole / "model"}"\n[checkpoint]\nevery = 2\n'
                      '[[source]]\nname = "sums"\ngenerate = "arithmetic"\ndocuments = 100\n')
    train(recipe, out, "--max-steps", 2)
    config = out / "from" / "config.json"
    before = config.read_text()
    config.write_text(re.sub(r'("rope_theta": )[0-9.]+', r"\g<1>77.0", before))
    assert config.read_text() != before
    said = train(recipe, out, "--resume", status=1)
    assert "rope_theta" in said and "has changed" in said
    config.write_text(before)
    train(recipe, out, "--resume")
