"""The event files of a run, read by TensorBoard: what the metrics say, every step once, however often the run was stopped."""
import os
import shutil

import numpy
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from train_support import checkpoints, metrics, train, write_recipe

SHORT = ["stage.short.steps=8", "stage.long.steps=1", "stage.long.schedule={}", "validation.every=4", "validation.tokens=256"]
HELD = '[[source]]\nname = "held"\ngenerate = "arithmetic"\ndocuments = 20\nvalidation = true\n'


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = write_recipe(tmp_path_factory.mktemp("recipe"))
    path.write_text(path.read_text() + HELD)
    return path


def scalars(lines):
    """{tag: [(step, value)]}, values in FP32 as event files hold them."""
    found = {}
    for line in lines:
        values = {"train/" + name: line[name] for name in ("loss", "grad_norm", "learning_rate")}
        values |= {"source_loss/" + name: loss for name, loss in line.get("source_loss", {}).items()}
        values |= {"eval_loss/" + name: loss for name, loss in line.get("eval", {}).get("source_loss", {}).items()}
        values |= {f"experts/layer{layer['layer']}/{name}": layer[name]
                   for layer in line.get("experts", []) for name in ("max_violation", "load_entropy")}
        for tag, value in values.items():
            found.setdefault(tag, []).append((line["step"], numpy.float32(value)))
    return found


def expect_the_metrics(out):
    found, lines = EventAccumulator(str(out), {"scalars": 0}).Reload(), metrics(out)
    assert [line["step"] for line in lines] == list(range(1, 10))
    expected = scalars(lines)
    assert {tag.split("/")[0] for tag in expected} == {"train", "source_loss", "eval_loss", "experts"}
    assert set(found.Tags()["scalars"]) == expected.keys() | {"speed/mfu", "speed/tokens_per_second"}
    for tag, values in expected.items():
        assert [(event.step, event.value) for event in found.Scalars(tag)] == values, tag
    assert [event.step for event in found.Scalars("speed/mfu")] == list(range(1, 10))


def test_a_run_that_nobody_stopped(recipe, tmp_path):
    train(recipe, tmp_path / "run", *SHORT)
    expect_the_metrics(tmp_path / "run")


def test_a_run_that_was_stopped_twice(recipe, tmp_path):
    train(recipe, tmp_path / "run", *SHORT, "--max-steps", 5)
    train(recipe, tmp_path / "run", *SHORT, "--resume", "--max-steps", 2)
    train(recipe, tmp_path / "run", *SHORT, "--resume")
    assert len(list((tmp_path / "run").glob("events.out.tfevents.*"))) == 3
    expect_the_metrics(tmp_path / "run")


def test_a_run_that_lost_its_last_step(recipe, tmp_path):
    """Step 7 is in both event files, of which TensorBoard shows the later, and the first ends in the middle of a record."""
    train(recipe, tmp_path / "run", *SHORT, "--max-steps", 7)
    shutil.rmtree(checkpoints(tmp_path / "run")[-1])
    first, = (tmp_path / "run").glob("events.out.tfevents.*")
    os.truncate(first, first.stat().st_size - 5)
    train(recipe, tmp_path / "run", *SHORT, "--resume")
    assert len(list((tmp_path / "run").glob("events.out.tfevents.*"))) == 2
    expect_the_metrics(tmp_path / "run")
