"""lm-eval through /v1/completions, with the server's own tokenizer: its log-likelihoods are those of puna perplexity."""
import json
import os
import subprocess
import types

import pytest
from serve_support import PUNA, ask, demo_model, serving

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
import lm_eval  # noqa: E402
from lm_eval.models.openai_completions import LocalCompletionsAPI  # noqa: E402

TEXTS = ["The quick brown fox jumps over the lazy dog.", "Twice two is four; and three more are seven.\n\nSo it goes.", "Ein kurzer Satz, \u00fcbrigens."]
QUESTIONS = [("The sky is", [" blue", " seven", " made of cheese"], 0), ("Two and two are", [" a horse", " four"], 1),
             ("Puna is", [" a program", " a soup"], 0)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return demo_model(tmp_path_factory)


@pytest.fixture(scope="module")
def client(model):
    # FP32, and each sequence by itself: then a batch of any size gives the same.
    with serving(model, "--dtype", "fp32", "--batch-invariant", "--name", "demo") as (url, _):
        yield LocalCompletionsAPI(base_url=url + "/v1/completions", model="demo", tokenizer_backend="remote", num_concurrent=3, max_length=2048)


def perplexity(model, path, text):
    path.write_text(text)
    done = subprocess.run([PUNA, "perplexity", "--model", model, "--dtype", "fp32", "--threads", "1", "--text", path, "--json"],
                          capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_rolling_log_likelihoods_are_those_of_perplexity(client, model, tmp_path):
    requests = [types.SimpleNamespace(args=(text,)) for text in TEXTS]
    found = client.loglikelihood_rolling(requests, disable_tqdm=True)
    for text, one in zip(TEXTS, found, strict=True):
        expected = perplexity(model, tmp_path / "text.txt", text)
        assert one == pytest.approx(-expected["mean_nll"] * expected["tokens"], abs=1e-5 * expected["tokens"])


def test_a_local_task(client, tmp_path):
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps({"question": q, "choices": c, "answer": a}) + "\n" for q, c, a in QUESTIONS))
    task = {"task": "local_questions", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}}, "test_split": "test",
            "output_type": "multiple_choice", "doc_to_text": "{{question}}", "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}",
            "target_delimiter": "", "metric_list": [{"metric": "acc"}]}
    results = lm_eval.simple_evaluate(model=client, tasks=[task], bootstrap_iters=0, log_samples=True)
    samples = results["samples"]["local_questions"]
    assert len(samples) == len(QUESTIONS) and 0 <= results["results"]["local_questions"]["acc,none"] <= 1
    # Each choice's log-likelihood is that of its tokens behind the question's.
    for sample in samples:
        question, choices, _ = QUESTIONS[sample["doc_id"]]
        begin = len(client.tok_encode(question))
        for choice, ((likelihood, _),) in zip(choices, sample["resps"], strict=True):
            body = {"prompt": client.tok_encode(question + choice), "max_tokens": 0, "echo": True, "logprobs": 0}
            status, _, answer = ask(client.base_url, body)
            assert status == 200
            assert float(likelihood) == pytest.approx(sum(answer["choices"][0]["logprobs"]["token_logprobs"][begin:]), abs=1e-5)
