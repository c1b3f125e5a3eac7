"""puna train from what transformers or puna quantize wrote: loss and gradients of the first step are transformers' in FP64."""
import itertools
import json
import math
import pathlib
import shutil
import subprocess

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from train_support import PUNA, checkpoints, metrics, train
from transformers import (AutoTokenizer, Llama4Config, Llama4ForCausalLM, Llama4ForConditionalGeneration, Llama4Processor,
                          Llama4TextConfig)

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "models" / "puna-demo"
TILE, PATCH = 32, 8
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
SCALED = ROPE | {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0,
                 "original_max_position_embeddings": 32}
CLOSE = 1e-13  # relative, of FP64 sums in another order; FP32 in the vision model's rotations alone shows as 2e-11

TEXTS = [
    {"text": "The quick brown fox jumps over the lazy dog; 12 + 30 = 42. " * 3},
    {"text": "Caf\u00e9\n\n  au lait"},
    {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "What is 2 + 2?"},
                  {"role": "assistant", "content": "It is 4."}, {"role": "user", "content": "And 3 + 4?"},
                  {"role": "assistant", "content": "Seven."}]},
    {"messages": [{"role": "user", "content": "Name three colours."}, {"role": "assistant", "content": "Red, green, blue."}]},
]
PICTURES = [
    {"messages": [{"role": "user", "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "What is this?"}]},
                  {"role": "assistant", "content": "Noise."}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "Compare"}, {"type": "image", "path": "b.png"},
                                               {"type": "image", "path": "a.png"}]},
                  {"role": "assistant", "content": "They differ."}, {"role": "user", "content": "Sure?"},
                  {"role": "assistant", "content": "Yes."}]},
    {"text": "One picture: <image> and another: <image>", "images": ["b.png", "c.png"]},
]

CLIP = 0.5  # under each norm here
RECIPE = """
steps = 1
threads = 1
precision = "float64"
[model]
from = "{model}"
[batch]
sequence_length = 128
tokens = 65536
micro_tokens = 128
[optimizer]
clip_norm = {clip}
[[source]]
name = "records"
files = ["records.jsonl"]
max_epochs = 1
"""


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(TOKENIZER)


def text_settings(tokenizer, **more):
    ids = tokenizer.convert_tokens_to_ids
    return dict(
        vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, head_dim=16,
        intermediate_size=32, intermediate_size_mlp=96, num_local_experts=4, interleave_moe_layer_step=2, use_qk_norm=True,
        rope_parameters=ROPE, attention_chunk_size=16, floor_scale=8, max_position_embeddings=512,
        bos_token_id=ids("<|begin_of_text|>"), eos_token_id=[ids("<|end_of_text|>"), ids("<|eot|>")],
        pad_token_id=ids("<|finetune_right_pad|>")) | more


def save(model, folder):
    """In several shards, beside a tokenizer; no norm is all ones, no bias zero."""
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape)
    model.save_pretrained(folder, max_shard_size="300KB")
    assert len(list(folder.glob("model-*-of-*.safetensors"))) > 2
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TOKENIZER / name, folder)
    return folder


@pytest.fixture(scope="module")
def seeing(tokenizer, tmp_path_factory):
    ids = tokenizer.convert_tokens_to_ids
    vision = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, image_size=TILE,
                  patch_size=PATCH, pixel_shuffle_ratio=0.5, vision_output_dim=48, projector_input_dim=48, projector_output_dim=48,
                  rope_parameters=ROPE | {"rope_theta": 65536.0})  # FP32 has its frequencies exactly
    config = Llama4Config(text_config=text_settings(tokenizer), vision_config=vision, image_token_index=ids("<|patch|>"),
                          boi_token_index=ids("<|image_start|>"), eoi_token_index=ids("<|image_end|>"))
    torch.manual_seed(1)
    return save(Llama4ForConditionalGeneration(config), tmp_path_factory.mktemp("seeing"))


@pytest.fixture(scope="module")
def reading(tokenizer, tmp_path_factory):
    torch.manual_seed(2)
    config = Llama4TextConfig(**text_settings(tokenizer, num_experts_per_tok=2, num_local_experts=3, use_qk_norm=False,
                                              rope_parameters=SCALED))
    return save(Llama4ForCausalLM(config), tmp_path_factory.mktemp("reading"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for seed, name in enumerate(("a.png", "b.png", "c.png")):
        pixels = torch.randint(0, 256, (TILE, TILE, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / name)
    return folder


def first_step(model, records, out, pictures=None):
    """The metrics of one step on all records, each once."""
    folder = out.with_suffix(".recipe")
    folder.mkdir() if pictures is None else shutil.copytree(pictures, folder)
    (folder / "records.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (folder / "one.toml").write_text(RECIPE.format(model=model, clip=CLIP))
    train(folder / "one.toml", out)
    line, = metrics(out)
    return line


def encode(tokenizer, record):
    """(ids, which of them are to be predicted): all of a text, of a chat what the assistant says."""
    tile = Llama4Processor._prompt_split_image(None, (1, 1), (TILE // PATCH // 2) ** 2)
    ids_of = lambda text: tokenizer.encode(text.replace("<|image|>", tile), add_special_tokens=False)
    layout = set(ids_of(tile))
    if "text" in record:
        text = record["text"].replace("<image>", "<|image|>") if "images" in record else record["text"]
        ids = ids_of("<|begin_of_text|>" + text + "<|end_of_text|>")
        return ids, [i > 0 and token not in layout for i, token in enumerate(ids)]
    ids, learned = [], []
    for i, message in enumerate(record["messages"]):
        spoken = message["role"] == "assistant"
        if spoken:
            head = ids_of(tokenizer.apply_chat_template(record["messages"][:i], add_generation_prompt=True, tokenize=False))
            learned += [False] * (len(head) - len(ids))
        ids = ids_of(tokenizer.apply_chat_template(record["messages"][:i + 1], tokenize=False))
        learned += [spoken] * (len(ids) - len(learned))
    return ids, learned


def pixels_of(record, folder):
    """As transformers' image processor normalises them, which needs torchvision: a golden table of it."""
    names = record.get("images") or [part["path"] for message in record["messages"] if not isinstance(message["content"], str)
                                     for part in message["content"] if part["type"] == "image"]
    bits = json.loads((ROOT / "tests" / "golden" / "data" / "images" / "lut.json").read_text())["hf_bf16_bits"]
    table = torch.tensor(bits, dtype=torch.uint16).view(torch.bfloat16).double()
    levels = [torch.tensor(list(Image.open(folder / name).tobytes())).view(TILE, TILE, 3) for name in names]
    return table[torch.stack(levels)].permute(0, 3, 1, 2)


def step_of_transformers(cls, folder, tokenizer, records, pictures, monkeypatch):
    """(loss, {name: gradient}, targets), each record by itself."""
    model, info = cls.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager", output_loading_info=True)
    assert not {key: value for key, value in info.items() if value}
    # What transformers raises to FP32, such as norms, scores of experts and rotations, would lower FP64.
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    if pictures:
        rotary = model.vision_model.rotary_embedding
        rotary.freqs_ci = rotary._compute_freqs_ci(model.config.vision_config)
    total, targets = 0.0, 0
    for record in records:
        ids, learned = encode(tokenizer, record)
        seen = {"pixel_values": pixels_of(record, pictures)} if record in PICTURES else {}
        logits = model(input_ids=torch.tensor([ids]), use_cache=False, **seen).logits[0, :-1]
        assert logits.dtype == torch.float64
        labels = torch.tensor([token if to else -100 for token, to in zip(ids, learned)][1:])
        total = total + torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        targets += int((labels >= 0).sum())
    loss = total / targets
    loss.backward()
    return loss.item(), {name.removeprefix("language_model."): p.grad for name, p in model.named_parameters()}, targets


def gradients_of(out):
    """{name: gradient} of a run's only step: its first moments are a tenth of them, clipped."""
    norm = metrics(out)[0]["grad_norm"]
    assert norm > CLIP
    shards = [load_file(file) for file in checkpoints(out)[-1].glob("*.safetensors")]
    return {name.removeprefix("adam_m/"): 10 * norm / CLIP * t
            for shard in shards for name, t in shard.items() if name.startswith("adam_m/")}


def expect_step_of_transformers(out, line, expected):
    loss, gradients, targets = expected
    assert line["targets"] == targets
    norm = math.sqrt(sum(float(g.square().sum()) for g in gradients.values()))
    assert math.isclose(line["loss"], loss, rel_tol=CLOSE) and math.isclose(line["grad_norm"], norm, rel_tol=CLOSE)
    found = gradients_of(out)
    assert found.keys() == gradients.keys()
    for name, gradient in found.items():
        assert gradient.dtype == torch.float64
        assert float((gradient - gradients[name]).norm()) < 10 * CLOSE * float(gradients[name].norm()), name


def test_first_step_with_pictures_is_that_of_transformers(seeing, tokenizer, pictures, tmp_path, monkeypatch):
    records = [record for pair in itertools.zip_longest(TEXTS, PICTURES) for record in pair if record]
    line = first_step(seeing, records, tmp_path / "run", pictures)
    expect_step_of_transformers(tmp_path / "run", line, step_of_transformers(
        Llama4ForConditionalGeneration, seeing, tokenizer, records, pictures, monkeypatch))


def test_first_step_on_texts_is_that_of_transformers(reading, tokenizer, tmp_path, monkeypatch):
    line = first_step(reading, TEXTS, tmp_path / "run")
    expect_step_of_transformers(tmp_path / "run", line, step_of_transformers(
        Llama4ForCausalLM, reading, tokenizer, TEXTS, None, monkeypatch))


@pytest.mark.parametrize("checkpoint,to,name", [("seeing", "int8", "int8"), ("reading", "q8_0", "q8_0.gguf")])
def test_learning_starts_from_a_quantised_model(request, pictures, tmp_path, checkpoint, to, name):
    model, records = request.getfixturevalue(checkpoint), TEXTS + PICTURES if checkpoint == "seeing" else TEXTS
    subprocess.run([PUNA, "quantize", "--model", model, "--to", to, "--out", tmp_path / name, "--threads", "1"]
                   + ["--format", "gguf"] * name.endswith(".gguf"), check=True, capture_output=True)
    dense = first_step(model, records, tmp_path / "dense", pictures)
    rounded = first_step(tmp_path / name, records, tmp_path / "rounded", pictures)
    assert rounded["targets"] == dense["targets"] and rounded["loss"] != dense["loss"]
    before, after = gradients_of(tmp_path / "dense"), gradients_of(tmp_path / "rounded")
    assert math.isclose(rounded["loss"], dense["loss"], rel_tol=1e-3)  # 3e-4 of INT8 in rows, 5e-5 of q8_0
    away = math.sqrt(sum(float((after[key] - before[key]).square().sum()) for key in before))
    assert before.keys() == after.keys() and away < 0.1 * dense["grad_norm"]
