"""puna generate: several completions, many prompts of a file, guesses."""
import json
import os
import subprocess

import pytest

PUNA = os.environ["PUNA"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("model") / "demo"
    subprocess.run([PUNA, "demo-model", "--out", out], check=True, capture_output=True)
    return out


def generate(model, *flags):
    few = [] if "--max-tokens" in flags else ["--max-tokens", "12"]
    return subprocess.run([PUNA, "generate", "--model", model, "--threads", "1", *few, *flags],
                          capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_completions_draw_with_seeds_that_follow(model):
    several = json.loads(generate(model, "--prompt", "hello", "--n", "3", "--seed", "5", "--json").stdout)
    assert several["usage"]["completion_tokens"] == sum(len(c["tokens"]) for c in several["completions"])
    for i, completion in enumerate(several["completions"]):
        one = json.loads(generate(model, "--prompt", "hello", "--seed", str(5 + i), "--json").stdout)
        assert one["tokens"] == completion["tokens"]


def test_guesses_do_not_change_the_text(model):
    flags = ["--prompt", "abcabcabcabc", "--temperature", "0", "--max-tokens", "40", "--ignore-stop-tokens", "--json"]
    plain = json.loads(generate(model, *flags).stdout)
    for how in (["--speculate", "ngram:6"], ["--draft", model]):
        guessed = json.loads(generate(model, *flags, *how).stdout)
        assert guessed["tokens"] == plain["tokens"]
        assert guessed["speculation"]["accepted"] <= guessed["speculation"]["drafted"]
    bad = generate(model, *flags, "--speculate", "nrgam")
    assert bad.returncode == 2 and "ngram:N" in bad.stderr


def test_many_prompts_come_in_order_and_as_alone(model, tmp_path):
    lines = [{"prompt": f"question {i}", "seed": i, "max_tokens": 1 + i % 7} for i in range(12)]
    lines[3]["n"] = 2
    lines[4]["prompt"] = "long " * 4000  # beyond the context
    file = tmp_path / "prompts.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    run = generate(model, "--prompts", file, "--max-concurrent", "5")
    assert run.returncode == 0, run.stderr
    answers = [json.loads(line) for line in run.stdout.splitlines()]
    assert [a["index"] for a in answers] == list(range(12))
    assert "context" in answers[4]["error"]
    assert len(answers[3]["completions"]) == 2
    for i in (0, 3, 11):
        one = generate(model, "--prompt", lines[i]["prompt"], "--seed", str(i), "--max-tokens", str(1 + i % 7), "--json")
        assert json.loads(one.stdout)["tokens"] == answers[i]["tokens"]
    assert "generated a second" in run.stderr


@pytest.mark.parametrize("line, said", [
    ('{"promt": "x"}', "did you mean 'prompt'"),
    ('{"prompt": 3}', "expected a string"),
    ('{"prompt": "x", "max_tokens": 0}', "max_tokens"),
    ('{"system": "x"}', "has no 'prompt'"),
    ('["x"]', "expected an object"),
    ('{"prompt": "x"', "p.jsonl:2"),
])
def test_a_wrong_line_is_named_before_anything_runs(model, tmp_path, line, said):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "good"}\n' + line + "\n")
    run = generate(model, "--prompts", file)
    assert run.returncode == 1 and run.stdout == ""
    assert said in run.stderr and "p.jsonl:2" in run.stderr
