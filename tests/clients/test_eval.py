"""puna eval as a program: likelihoods of transformers, an interrupt that keeps what is done, the status of --check."""
import json
import os
import pty
import signal
import subprocess

import pytest
import torch

PUNA = os.environ["PUNA"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "model"
    subprocess.run([PUNA, "demo-model", "--out", out], check=True, capture_output=True)
    return out


def write_task(path, header, items):
    path.write_text("\n".join(json.dumps(line) for line in [{"task": header}, *items]))
    return path


def test_choices_are_scored_as_by_transformers(demo, tmp_path):
    from transformers import AutoTokenizer, Llama4ForConditionalGeneration
    tokenizer = AutoTokenizer.from_pretrained(str(demo))
    model = Llama4ForConditionalGeneration.from_pretrained(str(demo), dtype=torch.float32, attn_implementation="eager").eval()
    choices = ["left", "right, and then on", "caf\u00e9"]
    items = [{"prompt": "Which way?", "choices": choices, "answer": 0},
             {"prompt": "The way is", "choices": choices, "answer": 1, "format": "raw"}]
    task = write_task(tmp_path / "ways.jsonl", {"kind": "multiple_choice", "system": ""}, items)
    out = tmp_path / "items.jsonl"
    subprocess.run([PUNA, "eval", "--model", demo, "--dtype", "fp32", "--task", task, "--items", out], check=True, capture_output=True)
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Which way?"}], add_generation_prompt=True, return_dict=True)["input_ids"]
    raw = [tokenizer.bos_token_id] + tokenizer.encode("The way is", add_special_tokens=False)
    for prompt, line in zip([chat, raw], out.read_text().splitlines(), strict=True):
        for choice, found in zip(choices, json.loads(line)["log_likelihoods"], strict=True):
            ids = tokenizer.encode(choice, add_special_tokens=False)
            with torch.no_grad():
                logprobs = torch.log_softmax(model(input_ids=torch.tensor([prompt + ids])).logits[0].double(), -1)
            expected = sum(float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(ids))
            assert abs(found - expected) < 1e-3 * len(ids)


def test_an_interrupt_shows_what_is_done(demo, tmp_path):
    task = write_task(tmp_path / "many.jsonl", {"kind": "numeric", "max_tokens": 32},
                      [{"prompt": f"{i}?", "answer": i} for i in range(20000)])
    out = tmp_path / "items.jsonl"
    master, slave = pty.openpty()
    process = subprocess.Popen([PUNA, "eval", "--model", demo, "--task", task, "--items", out, "--json"],
                               stdout=subprocess.PIPE, stderr=slave)
    os.close(slave)
    screen = b""
    while b"many [" not in screen:
        screen += os.read(master, 4096)
    process.send_signal(signal.SIGINT)
    result = json.loads(process.communicate(timeout=120)[0])
    os.close(master)
    assert process.returncode == 130
    assert result["partial"] is True
    task = result["tasks"][0]
    assert 0 < task["items"] < task["items_in_task"] == 20000
    assert len(out.read_text().splitlines()) == task["items"]


def test_check_decides_the_status(demo, tmp_path):
    items = [{"prompt": "a", "choices": ["b", "a longer one"], "answer": 0}]
    for threshold, status in ((1, 0), (0, 0)):
        task = write_task(tmp_path / "t.jsonl", {"kind": "multiple_choice", "threshold": threshold}, items)
        assert subprocess.run([PUNA, "eval", "--model", demo, "--task", task, "--check"], capture_output=True).returncode == status
    items[0]["answer"] = 1
    task = write_task(tmp_path / "t.jsonl", {"kind": "multiple_choice", "threshold": 1}, items)
    assert subprocess.run([PUNA, "eval", "--model", demo, "--task", task, "--check"], capture_output=True).returncode == 1
    assert subprocess.run([PUNA, "eval", "--model", demo, "--task", task], capture_output=True).returncode == 0
