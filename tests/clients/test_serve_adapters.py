"""puna serve: adapters by name, loaded and unloaded while it runs; the model loaded anew without a lost connection."""
import json
import os
import shutil
import signal
import subprocess
import threading
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from serve_support import PUNA, ask, demo_model, serving


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return demo_model(tmp_path_factory)


def write_adapter(model, out, seed, width=None):
    """A PEFT directory that adds noise to the queries and values of every layer."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for file in model.glob("*.safetensors"):
        with safe_open(file, "pt") as weights:
            for name in weights.keys():
                if not name.endswith(("self_attn.q_proj.weight", "self_attn.v_proj.weight")) or "vision" in name:
                    continue
                rows, columns = weights.get_slice(name).get_shape()
                module = "base_model.model." + name.removesuffix(".weight")
                tensors[module + ".lora_A.weight"] = torch.randn(4, width or columns, generator=generator) / columns ** 0.5
                tensors[module + ".lora_B.weight"] = torch.randn(rows, 4, generator=generator)
    assert tensors
    out.mkdir(parents=True)
    save_file(tensors, out / "adapter_model.safetensors")
    (out / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}))
    return out


def scores(url, model, prompt="The quick brown fox jumps over the lazy dog."):
    """The log-probabilities of a prompt and of what follows."""
    body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "echo": True, "logprobs": 0} | ({"model": model} if model else {})
    status, _, answer = ask(url + "/v1/completions", body)
    assert status == 200, answer
    assert model is None or answer["model"] == model
    return answer["choices"][0]["logprobs"]["token_logprobs"][1:]


def names(url):
    return [one["id"] for one in ask(url + "/v1/models")[2]["data"]]


def test_a_named_adapter_gives_what_it_gives_when_it_is_always_on(model, tmp_path):
    one, two = write_adapter(model, tmp_path / "one", 1), write_adapter(model, tmp_path / "two", 2)
    with serving(model, "--adapter", one) as (url, _):
        expected = scores(url, None)
    with serving(model, "--named-adapter", f"first={one}", "--named-adapter", f"second={two}") as (url, _):
        assert names(url) == ["demo", "first", "second"]
        assert ask(url + "/v1/models/first")[2]["parent"] == "demo"
        results = {}

        def run(name):
            results[name] = scores(url, name)

        threads = [threading.Thread(target=run, args=(name,)) for name in ("demo", "first", "second")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results["first"] == pytest.approx(expected, abs=2e-3)
        assert results["demo"] != pytest.approx(expected, abs=2e-2)
        assert results["second"] != pytest.approx(expected, abs=2e-2)
        assert scores(url, "demo") == pytest.approx(results["demo"], abs=2e-3)
        status, _, answer = ask(url + "/v1/completions", {"model": "third", "prompt": "x"})
        assert (status, answer["error"]["param"]) == (404, "model")
        status, _, answer = ask(url + "/v1/embeddings", {"model": "first", "input": "x"})
        assert (status, answer["error"]["param"]) == (400, "model")


def test_adapters_come_and_go_while_it_runs(model, tmp_path):
    allowed = tmp_path / "allowed"
    write_adapter(model, allowed / "one", 1)
    write_adapter(model, allowed / "narrow", 2, width=3)
    write_adapter(model, tmp_path / "outside", 3)
    (allowed / "link").symlink_to(tmp_path / "outside")
    with serving(model, "--adapter-dir", allowed) as (url, _):
        def load(name, path):
            return ask(url + "/v1/load_lora_adapter", {"lora_name": name, "lora_path": path})

        before = scores(url, None)
        assert load("one", "one")[0] == 200
        assert names(url) == ["demo", "one"]
        with_it = scores(url, "one")
        assert with_it != pytest.approx(before, abs=2e-2)
        for name, path, wanted in (("one", "one", 409), ("demo", "one", 409), ("x", "../outside", 400), ("x", "link", 400), ("x", "none", 400),
                                   ("x", str(tmp_path / "outside"), 400), ("x", "narrow", 400), ("", "one", 400), ("x" * 300, "one", 400)):
            status, _, answer = load(name, path)
            assert status == wanted, (name, path, answer)
        assert "this model" in load("x", "narrow")[2]["error"]["message"]

        # A stream that runs keeps its adapter.
        lines = []
        body = {"model": "one", "prompt": "The quick", "max_tokens": 400, "temperature": 0, "ignore_eos": True, "stream": True}
        whole = ask(url + "/v1/completions", body | {"stream": False})[2]["choices"][0]["text"]
        process = subprocess.Popen(["curl", "-sN", url + "/v1/completions", "-H", "Content-Type: application/json", "-d", json.dumps(body)],
                                   stdout=subprocess.PIPE, text=True)
        lines.append(process.stdout.readline())
        assert ask(url + "/v1/unload_lora_adapter", {"lora_name": "one"})[0] == 200
        assert names(url) == ["demo"]
        lines += process.stdout.readlines()
        assert process.wait() == 0 and lines[-2] == "data: [DONE]\n"
        text = "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines if line.startswith("data: {"))
        assert text == whole
        assert ask(url + "/v1/unload_lora_adapter", {"lora_name": "one"})[0] == 404
        assert ask(url + "/v1/completions", {"model": "one", "prompt": "x"})[0] == 404
        assert load("one", "one")[0] == 200
        assert scores(url, "one") == pytest.approx(with_it, abs=2e-3)


def test_requests_load_nothing_unless_it_was_switched_on(model, tmp_path):
    write_adapter(model, tmp_path / "one", 1)
    with serving(model) as (url, _):
        status, _, answer = ask(url + "/v1/load_lora_adapter", {"lora_name": "one", "lora_path": str(tmp_path / "one")})
        assert status == 403 and "--adapter-dir" in answer["error"]["message"]


def test_wrong_flags(model, tmp_path):
    for flags, said in ((["--named-adapter", "one"], "NAME=DIR"), (["--named-adapter", f"a={tmp_path}"], "no PEFT adapter"),
                        (["--adapter-dir", tmp_path / "none"], "no directory")):
        ended = subprocess.run([PUNA, "serve", "--model", model, "--port", "0", *flags], capture_output=True, text=True, timeout=120)
        assert ended.returncode != 0 and said in ended.stderr, ended.stderr


def test_the_model_is_loaded_anew_without_a_lost_connection(model, tmp_path):
    served = tmp_path / "served"
    shutil.copytree(model, served)
    log = tmp_path / "log"
    with log.open("w") as written, serving(served, "--name", "it", stderr=written) as (url, process):
        def said(text):
            return text in log.read_text()

        def reload(text):
            os.kill(process.pid, signal.SIGUSR1)
            for _ in range(600):
                if said(text):
                    return
                time.sleep(0.1)
            raise AssertionError(f"nothing said '{text}'")

        before = scores(url, "it")
        body = {"prompt": "The quick", "max_tokens": 1500, "temperature": 0, "ignore_eos": True, "stream": True}
        stream = subprocess.Popen(["curl", "-sN", url + "/v1/completions", "-H", "Content-Type: application/json", "-d", json.dumps(body)],
                                  stdout=subprocess.PIPE, text=True)
        assert stream.stdout.readline().startswith("data: {")
        # Other weights, put in place whole as a new file.
        weights = next(served.glob("*.safetensors"))
        with safe_open(weights, "pt") as file:
            changed = {name: file.get_tensor(name) for name in file.keys()}
            metadata = file.metadata()
        name = next(name for name in changed if name.endswith("layers.0.self_attn.q_proj.weight") and "vision" not in name)
        changed[name] = torch.flip(changed[name], [0]).contiguous()
        save_file(changed, tmp_path / "new.safetensors", metadata)
        os.replace(tmp_path / "new.safetensors", weights)
        reload("was loaded anew")
        assert scores(url, "it") != pytest.approx(before, abs=2e-2)
        rest = stream.stdout.readlines()
        assert stream.wait() == 0 and rest[-2] == "data: [DONE]\n"
        assert sum(line.startswith("data: {") for line in rest) > 100

        # One that cannot be loaded: the server goes on with what it has.
        after = scores(url, "it")
        (tmp_path / "broken").write_bytes(b"nothing")
        os.replace(tmp_path / "broken", weights)
        reload("could not load anew")
        assert scores(url, "it") == pytest.approx(after, abs=2e-3)
