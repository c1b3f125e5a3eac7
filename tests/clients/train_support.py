"""A small recipe with everything that a run has state for, and running `puna train` on it."""
import json
import os
import pathlib
import subprocess

PUNA = os.environ["PUNA"]

RECIPE = """
seed = 3
threads = 1
[model]
vocab_size = 400
[model.config.text_config]
hidden_size = 32
num_hidden_layers = 4
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 8
intermediate_size = 24
intermediate_size_mlp = 48
num_local_experts = 4
num_experts_per_tok = 1
interleave_moe_layer_step = 2
no_rope_layer_interval = 4
attention_chunk_size = 48
max_position_embeddings = 512
use_qk_norm = true
rope_theta = 10000.0
[model.config.vision_config]
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 64
image_size = 64
patch_size = 16
vision_output_dim = 32
pixel_shuffle_ratio = 0.5
[optimizer]
learning_rate = 3e-3
[balance]
bias_rate = 0.01
load_balance_weight = 0.01
dead_steps = 3
[checkpoint]
every = 2
[log]
details_every = 3
[[source]]
name = "notes"
files = ["notes.txt"]
[[source]]
name = "arithmetic"
generate = "arithmetic"
documents = 200
[[source]]
name = "pictures"
generate = "pictures"
documents = 40
[[stage]]
name = "short"
steps = 40
batch = {sequence_length = 128, tokens = 256, micro_tokens = 128}
schedule = {warmup_steps = 5}
[[stage]]
name = "long"
steps = 40
weights = {notes = 1, arithmetic = 1, pictures = 1}
batch = {sequence_length = 256, tokens = 256}
optimizer = {reset = true, learning_rate = 1e-3}
schedule = {kind = "wsd", decay_steps = 10}
model = {ntk_factor = 4.0, attention_chunk_size = 96}
"""


def write_recipe(folder):
    folder = pathlib.Path(folder)
    (folder / "notes.txt").write_text("The quick brown fox jumps over the lazy dog. " * 40)
    path = folder / "small.toml"
    path.write_text(RECIPE)
    return path


def command(recipe, out, *more):
    return [PUNA, "train", str(recipe), f"out={out}", *map(str, more)]


def train(recipe, out, *more, status=0, **options):
    """Runs to the end; returns what was said on both streams."""
    result = subprocess.run(command(recipe, out, *more), capture_output=True, text=True, timeout=300, **options)
    assert result.returncode == status, (result.returncode, result.stdout, result.stderr)
    return result.stdout + result.stderr


def metrics(out):
    return [json.loads(line) for line in (pathlib.Path(out) / "metrics.jsonl").read_text().splitlines()]


def checkpoints(out):
    return sorted(p for p in (pathlib.Path(out) / "checkpoints").glob("step-*") if p.suffix == "")
