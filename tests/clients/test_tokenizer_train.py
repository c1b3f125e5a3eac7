"""puna tokenizer train against the Hugging Face tokenizers library: what is learnt, and the ids of what is written."""
import json
import os
import random
import subprocess

import pytest
from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

PUNA = os.environ["PUNA"]
PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPECIALS = {"compact": 21, "full": 2048}
DIGITS = "0123456789"

WORDS = ("the of and to in that is was he for it with as his on be at by had not are but from or have an they which one you were "
         "token tokens tokenizer training trained mixture expert experts router routed attention "
         "HTTPServer snake_case camelCase don't it's WE'LL I'M na\u00efve Z\u00fcrich stra\u00dfe \ufb01n \u00dcn\u00efc\u00f6d\u00e9 \u0133 \u01c4 \u02b0mod \u00aa "
         "\u4f60\u597d \u4e16\u754c \u65e5\u672c\u8a9e \u3042\u308a\u304c\u3068\u3046 \uc548\ub155\ud558\uc138\uc694 \u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440 \u03b3\u03b5\u03b9\u03ac \u0928\u092e\u0938\u094d\u0924\u0947 \u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u0645\u0631\u062d\u0628\u0627 \u05e9\u05dc\u05d5\u05dd e\u0301 a\u0308\u0301 \u0301x "
         "12 123 1234 3.14159 \u0663\u0664\u0665 \u00b2 \u216b \U0001f999 \U0001f469\u200d\U0001f469\u200d\U0001f467 -> == ... //// #### {}; --- \\n \u00a0 \u2003 \u200b").split(" ")


def words(rng, count):
    out = []
    for _ in range(count):
        out.append(rng.choice(WORDS))
        out.append(rng.choice([" ", " ", " ", " ", "\n", "\n\n", "  ", "\t", "", "\r\n", " \n ", "/"]))
    return "".join(out)


def few_letters(rng, count):
    letters = "abcd"[:rng.randint(1, 4)]
    return "".join(rng.choice(letters) for _ in range(count))


def any_characters(rng, count):
    codes = [rng.randrange(0x20), rng.randrange(0x80), rng.randrange(0x800), rng.randrange(0x2000, 0x2100), rng.randrange(0xD800),
             rng.randrange(0xE000, 0x110000)]
    return "".join(chr(rng.choice(codes + [32, 10])) if rng.random() < .5 else chr(rng.randrange(0xD800)) for _ in range(count))


def corpus(kind, seed):
    rng = random.Random(seed)
    make = {"words": words, "letters": few_letters, "characters": any_characters}[kind]
    return [make(rng, rng.randint(1, 400)) for _ in range(60)]


def theirs(texts, tokens, min_frequency=2, max_token_bytes=128):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    # Its longest token has one byte less than it is told.
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=tokens, min_frequency=min_frequency, max_token_length=max_token_bytes + 1, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def puna(*args):
    return subprocess.run([PUNA, *map(str, args)], capture_output=True, text=True)


def train(tmp_path, texts, tokens, *more, specials="compact"):
    (tmp_path / "text.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    out = tmp_path / "out"
    run = puna("tokenizer", "train", "--vocab-size", tokens + SPECIALS[specials], "--specials", specials, "--out", out, "--json", *more,
               tmp_path / "text.jsonl")
    assert run.returncode == 0, run.stderr
    return out, json.loads(run.stdout)


def vocabulary(out):
    return json.loads((out / "tokenizer.json").read_text())["model"]["vocab"]


def ids_of_puna(out, text, specials="text"):
    (out / "input").write_bytes(text.encode())
    run = puna("tokenize", "--model", out, "--file", out / "input", "--specials", specials, "--json")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)["ids"]


@pytest.mark.parametrize("kind,seed,tokens", [("words", 1, 300), ("words", 2, 500), ("characters", 3, 400), ("characters", 4, 600)]
                         + [("letters", seed, 256 + 5 * (seed - 4)) for seed in range(5, 20)])
def test_learns_what_the_library_learns(tmp_path, kind, seed, tokens):
    texts = corpus(kind, seed)
    expected = theirs(texts, tokens, min_frequency=1).get_vocab()
    out, report = train(tmp_path, texts, len(expected), "--min-frequency", 1)
    assert vocabulary(out) == expected
    assert report["ranks"] == len(expected)


@pytest.mark.parametrize("options,flags", [
    ({"min_frequency": 20}, ["--min-frequency", 20]),
    ({"max_token_bytes": 4}, ["--max-token-bytes", 4]),
    ({"min_frequency": 5, "max_token_bytes": 3}, ["--min-frequency", 5, "--max-token-bytes", 3]),
])
def test_options_mean_what_the_library_means(tmp_path, options, flags):
    texts = corpus("words", 9)
    expected = theirs(texts, 420, **options).get_vocab()
    out, _ = train(tmp_path, texts, len(expected), *flags)
    assert vocabulary(out) == expected


@pytest.mark.parametrize("specials", ["compact", "full"])
@pytest.mark.parametrize("kind", ["words", "letters", "characters"])
def test_the_library_reads_the_same_ids(tmp_path, kind, specials):
    tokens = {"words": 600, "letters": 300, "characters": 500}[kind]
    out, _ = train(tmp_path, corpus(kind, 31), tokens, "--min-frequency", 1, specials=specials)
    library = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert library.get_vocab_size() == tokens + SPECIALS[specials]
    unseen = ["\n".join(corpus(k, 77)) for k in ("words", "letters", "characters")] + [" ", "a" * 5000, "<|eot", "\u2028\u2029 \x00\x7f"]
    text = "\n".join(unseen)
    ids = ids_of_puna(out, text)
    assert library.encode(text, add_special_tokens=False).ids == ids
    assert library.decode(ids, skip_special_tokens=False) == text
    # Between special tokens each of them stands alone, without a neighbour that it could merge with.
    text = "<|eot|>".join(unseen) + "<|begin_of_text|>abc<|eot|><|eot|> <|image|><|patch|>x<|header_start|>user<|header_end|>\n\n"
    assert library.encode(text, add_special_tokens=False).ids == ids_of_puna(out, text, "parse")


@pytest.mark.parametrize("specials", ["compact", "full"])
def test_transformers_opens_the_directory(tmp_path, specials):
    from transformers import AutoTokenizer
    out, _ = train(tmp_path, corpus("words", 41), 500, specials=specials)
    tokenizer = AutoTokenizer.from_pretrained(str(out))
    ids = ids_of_puna(out, "It's the tokenizer of \u65e5\u672c\u8a9e, 12345.")
    assert tokenizer.encode("It's the tokenizer of \u65e5\u672c\u8a9e, 12345.", add_special_tokens=False) == ids
    specials = {"bos": "<|begin_of_text|>", "eos": "<|eot|>", "pad": "<|finetune_right_pad|>"}
    assert {name: getattr(tokenizer, name + "_token") for name in specials} == specials
    assert ids_of_puna(out, "".join(specials.values()), "parse") == [getattr(tokenizer, name + "_token_id") for name in specials]
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "hello"}], add_generation_prompt=True, tokenize=False)
    assert prompt == ("<|begin_of_text|><|header_start|>user<|header_end|>\n\nhello<|eot|>"
                      "<|header_start|>assistant<|header_end|>\n\n")
    assert tokenizer.encode(prompt, add_special_tokens=False) == ids_of_puna(out, prompt, "parse")


def test_threads_change_nothing(tmp_path):
    texts = corpus("words", 51) * 300
    files = []
    for threads in (1, 2, 5):
        folder = tmp_path / str(threads)
        folder.mkdir()
        out, report = train(folder, texts, 500, "--threads", threads)
        files.append((out / "tokenizer.json").read_bytes() + (out / "tokenizer.model").read_bytes())
    assert report["bytes"] > 1 << 20
    assert files[0] == files[1] == files[2]


def test_single_digits(tmp_path):
    texts = corpus("words", 61)
    out, _ = train(tmp_path, texts, 500, "--single-digits")
    assert all(len(token) == 1 or not any(c in DIGITS for c in token) for token in vocabulary(out))
    ids = ids_of_puna(out, " 12345 is 5 1a")
    assert sum(len(Tokenizer.from_file(str(out / "tokenizer.json")).id_to_token(i)) == 1 for i in ids) >= 7
    mixed = theirs(texts, 500).get_vocab()
    assert any(len(token) > 1 and any(c in DIGITS for c in token) for token in mixed)


def test_report_counts_the_text(tmp_path):
    texts = corpus("words", 71)
    out, report = train(tmp_path, texts, 450)
    assert report["bytes"] == sum(len(t.encode()) for t in texts)
    library = Tokenizer.from_file(str(out / "tokenizer.json"))
    assert report["tokens"] == sum(len(library.encode(t, add_special_tokens=False).ids) for t in texts)
    assert report["tokens_per_byte"] == pytest.approx(report["tokens"] / report["bytes"])
    assert report["vocab_size"] == 471 and report["ranks"] == 450 and report["specials"] == 21


def test_invalid_utf8_is_text_too(tmp_path):
    (tmp_path / "latin").write_bytes("gr\u00f6\u00dfer gr\u00f6\u00dfer gr\u00f6\u00dfer".encode("latin-1") + b"\xff\xfe\x00\xc3")
    run = puna("tokenizer", "train", "--vocab-size", 279, "--specials", "compact", "--out", tmp_path / "out", "--json", tmp_path / "latin")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["bytes"] == 24
