"""The recipes of the model that ships run one after the other, and it is taught every command."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tomllib

import pytest
from safetensors.torch import load_file

PUNA = os.environ["PUNA"]
ROOT = pathlib.Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes" / "demo"
README = (RECIPES / "README.md").read_text()
ORDER = re.findall(r"^\./puna train recipes/demo/(\S+\.toml)", README, re.MULTILINE)
EMBEDDING = "language_model.model.embed_tokens.weight"


def puna(*args, **kw):
    done = subprocess.run([PUNA, *map(str, args)], capture_output=True, text=True, **kw)
    assert done.returncode == 0, (args, done.stdout, done.stderr)
    return done.stdout


def read(recipe):
    return tomllib.loads((RECIPES / recipe).read_text())


def test_every_command_has_a_fact():
    listed = puna("--help").split("Subcommands:\n")[1].split("\n\n")[0]
    commands = re.findall(r"^  (\S+) +\S", listed, re.MULTILINE)
    facts = [json.loads(line) for line in (RECIPES / "facts.jsonl").read_text().splitlines()]
    told = [text for fact in facts for text in [fact["answer"], *fact["facts"]]]
    untold = [c for c in commands if not any(re.search(rf"\./puna {re.escape(c)}(?![\w-])", text) for text in told)]
    assert len(commands) == len(listed.splitlines()) and {"chat", "train", "demo-model"} <= set(commands)
    assert untold == [], "give recipes/demo/facts.jsonl a fact that names each"


def test_the_order_of_the_recipes_is_told():
    assert sorted(ORDER) == sorted(path.name for path in RECIPES.glob("*.toml"))


def small(recipe):
    """Overrides that leave everything as it is but how long it takes."""
    changes = ["threads=1", f"batch.tokens={recipe['batch']['sequence_length']}"]
    changes += [f"source.{s['name']}.documents=40" for s in recipe["source"] if "documents" in s]
    for stage in recipe["stage"]:
        changes += [f"stage.{stage['name']}.steps=2", f"stage.{stage['name']}.schedule.warmup_steps=0"]
    return changes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory like the repository's own, where the commands of the README were run, with small()."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(RECIPES, place / "recipes" / "demo")
    shutil.copytree(ROOT / "docs", place / "docs")
    shutil.copy(ROOT / "README.md", place)
    for recipe in ORDER:
        puna("train", f"recipes/demo/{recipe}", *small(read(recipe)), cwd=place)
    return place


@pytest.fixture(scope="module")
def model(place):
    """The one that the README measures at the end."""
    return place / re.search(r"^\./puna eval (\S+)", README, re.MULTILINE)[1]


def test_each_recipe_does_its_stages_and_goes_on_from_the_one_before(place, model):
    before = None
    for recipe in ORDER:
        run = place / read(recipe)["out"]
        steps = [json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert steps == [stage["name"] for stage in read(recipe)["stage"] for _ in range(2)]
        weights, tokenizer = load_file(run / "model" / "model.safetensors"), (run / "model" / "tokenizer.json").read_bytes()
        if before:
            moved = (weights[EMBEDDING].float() - before[0][EMBEDDING].float()).abs().mean()
            assert 0 < moved < 0.05, "two or four steps from there; between two random ones it is 1"
            assert tokenizer == before[1]
        before = weights, tokenizer
    assert run / "model" == model


def test_the_last_model_answers(model):
    picture = ROOT / "models" / "puna-demo" / "example.png"
    said = json.loads(puna("generate", "--model", model, "--image", picture, "--prompt", "What is in the picture?", "--max-tokens", "8",
                           "--ignore-stop-tokens", "--json"))
    assert len(said["tokens"]) == 8 and isinstance(said["text"], str)
    assert said["sampling"]["temperature"] == 0, "as the recipe's generation says"


def test_the_last_model_describes_itself(model):
    first = read(ORDER[0])["model"]
    found = json.loads(puna("inspect", model, "--json"))["config"]
    assert found["text"]["vocab_size"] == first["vocab_size"]
    for part in ("text", "vision"):
        wanted = first["config"][f"{part}_config"]
        shared = wanted.keys() & found[part].keys()
        assert len(shared) > 7 and {key: wanted[key] for key in shared} == {key: found[part][key] for key in shared}
    assert re.match(rf"{re.escape(str(model))}: \d+\.\d+M parameters, \d+\.\d+M active per text token", puna("inspect", model))
