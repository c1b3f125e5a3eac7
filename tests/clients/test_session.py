"""puna chat --session: a conversation goes on in another run as if it had never stopped, and its cache is used."""
import json
import os
import re
import subprocess

import pytest

PUNA = os.environ["PUNA"]
FIRST = "Tell me a long story of a river, a stone and the rain in town. " * 2
SECOND = "And then?"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "model"
    subprocess.run([PUNA, "demo-model", "--out", out], check=True, capture_output=True)
    return out


def chat(model, text, *more):
    flags = ["--temperature", "0", "--max-tokens", "12", "--batch-invariant"]
    return subprocess.run([PUNA, "chat", "--model", model, *flags, *map(str, more)], input=text, capture_output=True, text=True, check=True)


def reused(out):
    return int(re.search(r"prompt \d+ tokens, (\d+) of them from the cache", " ".join(out.split())).group(1))


def test_goes_on_with_what_was_read(model, tmp_path):
    session = tmp_path / "talk.json"
    whole = chat(model, f"{FIRST}\n{SECOND}\n").stdout
    begun = chat(model, f"{FIRST}\n", "--session", session).stdout
    assert len(json.loads(session.read_text())["messages"]) == 2 and (tmp_path / "talk.json.cache").stat().st_size > 0
    went_on = chat(model, f"{SECOND}\n/stats\n", "--session", session).stdout
    assert whole == begun + went_on[:len(whole) - len(begun)]
    assert reused(went_on) >= 32
    assert len(json.loads(session.read_text())["messages"]) == 4


def test_a_cache_of_another_kind_or_a_cut_one_costs_time_alone(model, tmp_path):
    session, cache = tmp_path / "talk.json", tmp_path / "talk.json.cache"
    chat(model, f"{FIRST}\n", "--session", session)
    kept, talk = cache.read_bytes(), session.read_text()
    expected = chat(model, f"{SECOND}\n", "--session", session).stdout
    for damaged in (kept[:-1], kept[:100], b""):
        session.write_text(talk)
        cache.write_bytes(damaged)
        again = chat(model, f"{SECOND}\n/stats\n", "--session", session)
        assert again.stdout.startswith(expected) and reused(again.stdout) == 0
        assert "will be read again" in again.stderr
    session.write_text("{}")
    wrong = subprocess.run([PUNA, "chat", "--model", model, "--session", session], input="", capture_output=True, text=True)
    assert wrong.returncode == 1 and wrong.stderr.count("\n") == 1


def test_sigterm_saves_it_too(model, tmp_path):
    session = tmp_path / "talk.json"
    flags = ["--model", model, "--temperature", "0", "--max-tokens", "5", "--session", session]
    process = subprocess.Popen([PUNA, "chat", *map(str, flags)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    process.stdin.write(f"{FIRST}\n".encode())
    process.stdin.flush()
    process.stdout.readline()  # the answer is there
    process.terminate()
    assert process.wait(60) == 143
    assert len(json.loads(session.read_text())["messages"]) == 2
