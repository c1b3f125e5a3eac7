"""Answers of a random model under a grammar: Python's own parsers must agree with what the grammar promises."""
import json
import os
import re
import subprocess

import pytest

PUNA = os.environ["PUNA"]
SCHEMA = {"type": "object",
          "properties": {"name": {"type": "string", "minLength": 1, "maxLength": 12}, "size": {"type": "integer", "minimum": -20, "maximum": 1300},
                         "kind": {"enum": ["red", "gr\u00fcn", None]},
                         "day": {"type": "string", "format": "date"},
                         "parts": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3}},
          "required": ["name", "size", "parts"]}


def puna(*args, status=0):
    done = subprocess.run([PUNA, *map(str, args)], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "model"
    puna("demo-model", "--out", out)
    return out


def answer(demo, *more):
    given = {"--max-tokens": 600, "--temperature": 1, "--top-p": 1} | dict(zip(more[::2], more[1::2]))
    out = puna("generate", "--model", demo, "--prompt", "x", "--json", *(word for pair in given.items() for word in pair))
    return json.loads(out.stdout)


def test_answers_satisfy_the_schema(demo, tmp_path):
    from datetime import date
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    for seed in range(8):
        result = answer(demo, "--seed", seed, "--json-schema", tmp_path / "schema.json")
        assert result["stop_reason"] == "stop_token"
        value = json.loads(result["text"])
        assert {"name", "size", "parts"} <= set(value) <= set(SCHEMA["properties"])
        assert isinstance(value["name"], str) and 1 <= len(value["name"]) <= 12
        assert isinstance(value["size"], int) and -20 <= value["size"] <= 1300
        assert 1 <= len(value["parts"]) <= 3 and all(isinstance(part, bool) for part in value["parts"])
        assert value.get("kind") in ("red", "gr\u00fcn", None)
        if "day" in value and not value["day"].startswith("0000"):
            date.fromisoformat(value["day"])


def test_answers_match_the_grammar(demo, tmp_path):
    (tmp_path / "g.gbnf").write_text('root ::= ("yes" | "no") (", " word){1,3} "."\nword ::= [a-z\u00e4]{2,6}\n')
    texts = {answer(demo, "--seed", seed, "--grammar", tmp_path / "g.gbnf")["text"] for seed in range(6)}
    assert len(texts) > 1
    for text in texts:
        assert re.fullmatch("(yes|no)(, [a-z\u00e4]{2,6}){1,3}[.]", text), text


def test_bias_and_errors(demo, tmp_path):
    (tmp_path / "g.gbnf").write_text('root ::= "a" | "b"')
    (tmp_path / "bad.json").write_text('{"properties": {"a": {"not": {}}}}')
    wrong = puna("generate", "--model", demo, "--prompt", "x", "--json-schema", tmp_path / "bad.json", status=1)
    assert "#/properties/a: the key 'not' is not supported" in wrong.stderr
    wrong = puna("generate", "--model", demo, "--prompt", "x", "--grammar", tmp_path / "g.gbnf", "--ignore-stop-tokens", status=2)
    assert "--ignore-stop-tokens" in wrong.stderr
    wrong = puna("generate", "--model", demo, "--prompt", "x", "--logit-bias", "7", status=2)
    assert "ID=VALUE" in wrong.stderr
    wrong = puna("generate", "--model", demo, "--prompt", "x", "--logit-bias", "99999999=1", status=1)
    assert "not in the vocabulary" in wrong.stderr
    first = answer(demo, "--temperature", 0, "--max-tokens", 1)["tokens"][0]
    assert answer(demo, "--temperature", 0, "--max-tokens", 1, "--logit-bias", f"{first}=-inf")["tokens"][0] != first
