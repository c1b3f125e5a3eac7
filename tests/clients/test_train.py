"""What puna train leaves behind, read by transformers; starting from a checkpoint; clear ends of bad runs."""
import json
import math
import pathlib
import re
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file
from train_support import PUNA, checkpoints, command, metrics, train, write_recipe

GOLDEN = pathlib.Path(__file__).parent.parent / "golden" / "data" / "ckpt" / "a_scout"
STEPS = 30
SHORT = [f"stage.short.steps={STEPS}", "stage.long.steps=1", "stage.long.schedule={}"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def run(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    train(recipe, out, *SHORT)
    return out


def test_transformers_loads_the_exported_model(run, tmp_path):
    from transformers import AutoTokenizer, Llama4ForConditionalGeneration
    model_dir = tmp_path / "model"
    subprocess.run([PUNA, "export", run, "--out", model_dir, "--dtype", "fp32"], check=True, capture_output=True)
    model, info = Llama4ForConditionalGeneration.from_pretrained(
        str(model_dir), dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    assert not {k: v for k, v in info.items() if v}
    tokenizer = AutoTokenizer.from_pretrained(str(model_dir))
    text = "The quick brown fox: 12 + 30 = 42. Caf\u00e9\n\n  jumps"
    said = subprocess.run([PUNA, "tokenize", "--model", model_dir, "--text", text, "--json"], check=True, capture_output=True)
    assert json.loads(said.stdout)["ids"] == tokenizer.encode(text, add_special_tokens=False)
    ids = torch.tensor(([tokenizer.bos_token_id] + tokenizer.encode(text, add_special_tokens=False)) * 4)
    save_file({"ids": ids.to(torch.int64)}, str(tmp_path / "ids.safetensors"))
    subprocess.run([PUNA, "golden", "--ckpt", model_dir, "--ids", tmp_path / "ids.safetensors", "--key", "ids", "--out",
                    tmp_path / "out.safetensors"], check=True, capture_output=True)
    with torch.no_grad():
        expected = model.eval()(input_ids=ids[None], use_cache=False).logits[0]
    found = load_file(str(tmp_path / "out.safetensors"))["logits.all"]
    assert len(ids) > 96, "more than a chunk"
    assert float((found - expected).abs().max()) < 1e-4


def test_the_run_directory_has_the_model_in_bf16(run):
    weights = load_file(str(run / "model" / "model.safetensors"))
    assert all(t.dtype == torch.bfloat16 for t in weights.values())
    wide = load_file(str(next(checkpoints(run)[-1].glob("*.safetensors"))))
    name = "model.layers.1.feed_forward.experts.down_proj"
    assert torch.equal(weights["language_model." + name], wide["weights/" + name].bfloat16())


def test_a_step_that_was_kept_can_be_exported(run, tmp_path):
    steps = [int(p.name[5:]) for p in checkpoints(run)]
    subprocess.run([PUNA, "export", run, "--out", tmp_path / "early", "--step", str(steps[0])], check=True, capture_output=True)
    early, last = (load_file(str(d / "model.safetensors")) for d in (tmp_path / "early", run / "model"))
    assert early.keys() == last.keys() and any(not torch.equal(early[k], last[k]) for k in early)
    said = subprocess.run([PUNA, "export", run, "--out", tmp_path / "none", "--step", "7"], capture_output=True, text=True)
    assert said.returncode == 1 and "step-00000007" in said.stderr
    # The recipe said what the model is like in the second stage.
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["text_config"]["attention_chunk_size"] == 96


def test_learning_goes_on_from_a_checkpoint(recipe, run, tmp_path):
    text = recipe.read_text()
    begin, end = text.index("[model]"), text.index("[optimizer]")
    other = recipe.parent / "more.toml"
    other.write_text(text[:begin] + f'[model]\nfrom = "{run / "model"}"\n' + text[end:].replace("model = {ntk_factor = 4.0, attention_chunk_size = 96}", ""))
    train(other, tmp_path / "more", *SHORT, "--max-steps", 2)
    vocabulary = json.loads((run / "model" / "config.json").read_text())["text_config"]["vocab_size"]
    before, first = metrics(run)[0], metrics(tmp_path / "more")[0]
    assert abs(before["loss"] - math.log(vocabulary)) < 0.5
    assert first["targets"] == before["targets"], "the same documents"
    assert first["loss"] < before["loss"] - 1, (before, first)


def test_tiles_of_a_picture_are_a_setting_that_the_model_keeps(recipe, tmp_path):
    def most_tiles(run):
        return json.loads((tmp_path / run / "model" / "preprocessor_config.json").read_text())["max_patches"]
    text = recipe.read_text()
    begin, end = text.index("[model]"), text.index("[optimizer]")
    other = recipe.parent / "same_tiles.toml"
    other.write_text(text[:begin] + f'[model]\nfrom = "{tmp_path}/few/model"\n' + text[end:])
    few = ["stage.short.steps=5", "stage.long.steps=1", "stage.long.schedule={}", "stage.long.model={}"]
    train(recipe, tmp_path / "few", *few, "model.max_tiles=3")
    train(other, tmp_path / "more", *few)
    assert most_tiles("few") == 3 and most_tiles("more") == 3
    said = train(recipe, tmp_path / "bad", "model.max_tiles=257", status=1)
    assert "'model.max_tiles' is 257; give 1 to 256" in said


def test_a_tokenizer_of_another_model_is_refused(recipe, run, tmp_path):
    text = recipe.read_text()
    begin, end = text.index("[model]"), text.index("[optimizer]")
    other = recipe.parent / "wrong.toml"
    other.write_text(text[:begin] + f'[model]\nfrom = "{GOLDEN}"\ntokenizer = "{run / "model"}"\n' + text[end:])
    said = train(other, tmp_path / "wrong", *SHORT, status=1)
    assert "tokenizer" in said and "own tokenizer" in said, said
    other.write_text(text.replace("vocab_size = 400", f'tokenizer = "{run / "none"}"'))
    said = train(other, tmp_path / "none", *SHORT, status=1)
    assert str(run / "none") in said, said


def test_the_line_of_a_run_says_how_fast_it_is_and_how_long_it_takes(recipe, tmp_path):
    said = subprocess.run(command(recipe, tmp_path / "run", "stage.short.steps=8", "stage.long.steps=1",
                                  "stage.long.schedule={}"), check=True, capture_output=True, text=True).stderr
    last = [line for line in said.splitlines() if line.startswith("long 9/9")][-1]
    seen = re.fullmatch(r"long 9/9  loss (\S+)  (\d+) tokens/s  MFU (\d+)%  data wait (\d+)%  0s left", last)
    assert seen and 0 < float(seen[1]) < 20 and int(seen[2]) > 0 and int(seen[4]) <= 100
    usage = subprocess.run([PUNA, "train", "--help"], check=True, capture_output=True, text=True).stdout
    assert "MFU = 3 x forward FLOPs of the step / (seconds x" in usage


def test_data_that_run_out_end_the_run_clearly(recipe, tmp_path):
    text = recipe.read_text().replace('documents = 200', 'documents = 200\nmax_epochs = 1')
    short = recipe.parent / "short.toml"
    short.write_text(text)
    out = tmp_path / "run"
    said = train(short, out, "stage.short.weights={arithmetic=1}", "stage.short.steps=200", "stage.short.schedule.warmup_steps=0", status=1)
    assert "arithmetic" in said and "epoch" in said, said
    done = len(metrics(out))
    assert done > 3
    assert int(checkpoints(out)[-1].name[5:]) == done, "what was learned is saved"
    subprocess.run([PUNA, "export", out, "--out", tmp_path / "model"], check=True, capture_output=True)


def test_a_recipe_may_be_corrected_before_its_first_step(recipe, tmp_path):
    train(recipe, tmp_path / "run", "model.config.text_config.hiden_size=64", status=1)
    train(recipe, tmp_path / "run", "--max-steps", 1)
    assert "holds a run already" in train(recipe, tmp_path / "run", status=1)


def test_unknown_keys_and_shapes_that_cannot_be(recipe, tmp_path):
    said = train(recipe, tmp_path / "a", "optimiser.beta1=0.5", status=1)
    assert "optimiser" in said and "'optimizer'" in said
    said = train(recipe, tmp_path / "b", "model.config.text_config.hiden_size=64", status=1)
    assert "hiden_size" in said and "'hidden_size'" in said
    said = train(recipe, tmp_path / "c", "model.config.text_config.num_attention_heads=3", status=1)
    assert "num_attention_heads" in said or "num_key_value_heads" in said, said
    said = train(recipe, tmp_path / "d", "stage.long.model={hidden_size=64}", status=1)
    assert "shape" in said
    said = train(recipe, tmp_path / "e", "model.vocab_size=100", status=1)
    assert "vocab_size" in said and "100" in said


BIG = """
seed = 1
threads = 1
steps = 12
[model]
vocab_size = 512
[model.config]
model_type = "llama4_text"
hidden_size = 320
num_hidden_layers = 6
num_attention_heads = 5
num_key_value_heads = 5
head_dim = 64
intermediate_size = 512
intermediate_size_mlp = 1024
num_local_experts = 4
interleave_moe_layer_step = 2
attention_chunk_size = 128
max_position_embeddings = 256
[batch]
tokens = 512
sequence_length = 128
[validation]
every = 5
tokens = 512
[checkpoint]
every = 4
[[source]]
name = "sums"
generate = "arithmetic"
documents = 3000
[[source]]
name = "held"
generate = "arithmetic"
documents = 100
validation = true
"""


def dry_run(recipe, *changes):
    said = subprocess.run([PUNA, "train", recipe, *changes, "--dry-run", "--json"], check=True, capture_output=True, text=True)
    return json.loads(said.stdout)


@pytest.mark.parametrize("changes", [[], ["recompute=true"], ["precision=bfloat16"], ["model.config.num_hidden_layers=12", "steps=6"]],
                         ids=["plain", "recompute", "bfloat16", "deep"])
def test_a_dry_run_says_what_the_run_then_takes(tmp_path, changes):
    """Parameters and steps are exact; memory is within 10 % of the run's own peak, tokens and FLOPs of what it counts. Time depends on what else the machine does
    between the two, so that steps are only held to a factor of 3 (the plain ones), by the seconds that the run itself writes down."""
    recipe = tmp_path / "big.toml"
    recipe.write_text(BIG)
    plan = dry_run(recipe, *changes)
    assert not (tmp_path / "runs").exists() and not plan["refused"]
    out = tmp_path / "run"
    train(recipe, out, *changes)
    shards = [load_file(str(f)) for f in checkpoints(out)[-1].glob("*.safetensors")]
    weights = sum(t.numel() for shard in shards for name, t in shard.items() if name.startswith("weights/"))
    moments = sum(t.numel() for shard in shards for name, t in shard.items() if name.startswith("adam_"))
    assert plan["parameters"] == weights > 8e6
    memory = plan["memory_bytes"]
    computed = 6 if "precision=bfloat16" in changes else 4  # bytes of a weight with its copy in BF16
    assert (memory["weights"], memory["gradients"], memory["moments"]) == (computed * weights, 4 * weights, 4 * moments)
    assert memory["checkpoint_copy"] == 4 * (weights + moments)
    assert sum(stage["steps"] for stage in plan["stages"]) == len(metrics(out)) == (6 if "steps=6" in changes else 12)
    timing = [json.loads(line) for line in (out / "timing.jsonl").read_text().splitlines()]
    peak = max(line["peak_bytes"] for line in timing)
    assert abs(memory["total"] - peak) < 0.1 * peak, (memory, peak)
    tokens = metrics(out)[-1]["tokens"]
    planned = sum(stage["steps"] * stage["tokens_per_step"] for stage in plan["stages"])
    assert abs(planned - tokens) < 0.1 * tokens, (planned, tokens)
    flops = sum(line["flops"] for line in timing)
    planned = sum(stage["steps"] * stage["flops_per_step"] for stage in plan["stages"])
    assert abs(planned - flops) < 0.1 * flops, (planned, flops)
    seconds = sum(line["seconds"] for line in timing)
    assert changes or seconds / 3 < plan["seconds"]["steps"] < 3 * seconds, (plan["seconds"], seconds)
    assert plan["seconds"]["preparation"] > 0 and plan["seconds"]["validation"] > 0
    parts = plan["seconds"]["preparation"] + plan["seconds"]["steps"] + plan["seconds"]["validation"]
    assert abs(plan["seconds"]["total"] - parts) < 1e-6


def test_recomputation_saves_activations(tmp_path):
    recipe = tmp_path / "big.toml"
    recipe.write_text(BIG)
    changes = ["batch.tokens=2048", "model.config.num_hidden_layers=12"]
    kept, again = (dry_run(recipe, *changes, f"recompute={value}")["memory_bytes"]["activations"] for value in ("false", "true"))
    assert again < 0.65 * kept
