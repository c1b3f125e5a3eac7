"""The demo model in the real transformers library: the same tokens, the same prompt, the same logits as puna's own commands."""
import json
import os
import subprocess

import pytest
import torch
from safetensors.torch import load_file, save_file

PUNA = os.environ["PUNA"]


def puna(*args, **kw):
    return subprocess.run([PUNA, *map(str, args)], check=True, capture_output=True, text=True, **kw).stdout


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "model"
    puna("demo-model", "--out", out)
    return out


@pytest.fixture(scope="module")
def tokenizer(demo):
    from transformers import AutoTokenizer
    return AutoTokenizer.from_pretrained(str(demo))


@pytest.fixture(scope="module")
def model(demo):
    from transformers import Llama4ForConditionalGeneration
    return Llama4ForConditionalGeneration.from_pretrained(str(demo), dtype=torch.float32, attn_implementation="eager").eval()


def test_logits_are_those_of_transformers(demo, model, tokenizer, tmp_path):
    ids = torch.tensor([tokenizer.bos_token_id] + tokenizer.encode("A tiny model, z\u00fcrich \u4f60\u597d", add_special_tokens=False))
    save_file({"ids.0": ids.to(torch.int32)}, tmp_path / "ids.safetensors")
    puna("golden", "--ckpt", demo, "--ids", tmp_path / "ids.safetensors", "--all-keys", "--out", tmp_path / "out.safetensors")
    with torch.no_grad():
        expected = model(input_ids=ids[None], use_cache=False).logits[0]
    mine = load_file(tmp_path / "out.safetensors")["logits.0"]
    assert (mine - expected).abs().max() < 2e-4


def test_greedy_answer_is_that_of_transformers(demo, model, tokenizer):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello \U0001f999!"}]
    enc = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = json.loads(puna("generate", "--model", demo, "--dtype", "fp32", "--system", "Be brief.", "--prompt", "Hello \U0001f999!",
                          "--temperature", "0", "--max-tokens", "24", "--json"))
    assert out["usage"]["prompt_tokens"] == enc["input_ids"].shape[1]
    with torch.no_grad():
        ids = model.generate(**enc, do_sample=False, max_new_tokens=24)[0, enc["input_ids"].shape[1]:].tolist()
    stops = set(json.loads((demo / "generation_config.json").read_text())["eos_token_id"])
    expected = ids[: next((i for i, t in enumerate(ids) if t in stops), len(ids))]
    assert out["tokens"] == expected


def test_logprobs_sum_and_match(demo, model, tokenizer):
    out = json.loads(puna("generate", "--model", demo, "--dtype", "fp32", "--raw", "--prompt", "abc", "--max-tokens", "1",
                          "--ignore-stop-tokens", "--logprobs", "5", "--seed", "1", "--json"))
    ids = torch.tensor([[tokenizer.bos_token_id] + tokenizer.encode("abc", add_special_tokens=False)])
    with torch.no_grad():
        logprobs = torch.log_softmax(model(input_ids=ids).logits[0, -1].double(), -1)
    top = out["logprobs"][0]["top"]
    assert [t["token"] for t in top] == logprobs.topk(5).indices.tolist()
    for t in top + [out["logprobs"][0]]:
        assert abs(t["logprob"] - logprobs[t["token"]]) < 1e-4


def test_perplexity_is_that_of_transformers(demo, model, tokenizer, tmp_path):
    text = "It was the best of times, it was the worst of times. " * 4
    (tmp_path / "t.txt").write_text(text)
    out = json.loads(puna("perplexity", "--model", demo, "--dtype", "fp32", "--text", tmp_path / "t.txt", "--json"))
    ids = torch.tensor([[tokenizer.bos_token_id] + tokenizer.encode(text, add_special_tokens=False)])
    with torch.no_grad():
        loss = float(model(input_ids=ids, labels=ids).loss)
    assert out["tokens"] == ids.shape[1] - 1
    assert abs(out["mean_nll"] - loss) < 1e-4
