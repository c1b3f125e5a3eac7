"""Puna's tokenizer against the tiktoken library: the same text, one thread, ids compared.

    cmake -B build/bench -G Ninja -DPUNA_BENCH=ON -DPUNA_TORCH=OFF && ninja -C build/bench tokenizer_bench
    .venv/bin/python bench/tokenizer.py build/bench/bench/tokenizer_bench [--megabytes 20] [--rounds 5]

The text is mixed: Python's standard library (code), this repository's and the system's documents (prose), and the
multilingual strings of the goldens. tiktoken gets it in the stretches that Meta's Tokenizer would give it, cut
beforehand, so that only its own encode() is timed. The two run in turn, so that a change of load hits both.
"""
import argparse
import array
import json
import statistics
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path

import tiktoken
from llama_models.llama4 import tokenizer as meta

ROOT = Path(__file__).resolve().parent.parent


def mixed_text(num_bytes):
    """About `num_bytes` of UTF-8 in pieces of at most 8,000 characters, kinds taking turns."""
    golden = json.loads((ROOT / "tests/golden/data/tokenizer/encode.json").read_text())
    code = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    prose = [p for d in (ROOT / "docs", Path("/usr/share/doc"), Path("/usr/share/perl")) for p in sorted(d.rglob("*"))
             if p.is_file() and p.suffix in (".md", ".txt", ".pod", ".html", "") and p.stat().st_size > 2000]
    texts = lambda paths: (p.read_text("utf-8", "ignore") for p in paths)
    pieces = lambda source: [t[i:i + 8000] for t in source for i in range(0, len(t), 8000)]
    many_languages = "\n".join(row["text"] for row in golden["rows"] if "text" in row)
    kinds = [pieces(texts(code)), pieces(texts(prose)), pieces([many_languages])]
    out, size, i = [], 0, 0
    while size < num_bytes:
        for kind in kinds:
            piece = kind[i % len(kind)]
            out.append(piece)
            size += len(piece.encode())
        i += 1
    return "".join(out)


def cut_as_meta_does(text):
    """The stretches that Meta's Tokenizer hands to tiktoken."""
    window = meta.TIKTOKEN_MAX_ENCODE_CHARS
    cut = meta.Tokenizer._split_whitespaces_or_nonwhitespaces
    return [s for i in range(0, len(text), window) for s in cut(text[i:i + window], meta.MAX_NO_WHITESPACES_CHARS)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", nargs="?", default=ROOT / "build/release/bench/tokenizer_bench")
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    text = mixed_text(int(args.megabytes * 1e6))
    rank_file = Path(meta.__file__).with_name("tokenizer.model")
    peer = meta.Tokenizer(rank_file).model
    stretches = cut_as_meta_does(text)
    seconds = {"puna": [], "tiktoken": []}
    with tempfile.TemporaryDirectory() as folder:
        text_file, ids_file = Path(folder) / "text", Path(folder) / "ids"
        text_file.write_bytes(text.encode())
        for _ in range(args.rounds):
            command = [args.program, rank_file, text_file, "1", ids_file]
            seconds["puna"] += json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["seconds"]
            start = time.process_time()
            ids = [peer.encode_ordinary(s) for s in stretches]
            seconds["tiktoken"].append(time.process_time() - start)
        ours = array.array("i", ids_file.read_bytes())
    theirs = array.array("i", [i for part in ids for i in part])
    assert ours == theirs, "the ids differ"
    print(f"{len(text.encode()) / 1e6:.1f} MB, {len(ours):,} tokens, ids equal, one thread, {args.rounds} rounds in turn; "
          f"tiktoken {tiktoken.__version__}")
    for name, times in seconds.items():
        rates = sorted(len(ours) / t / 1e6 for t in times)
        print(f"{name:9} million tokens/s: min {rates[0]:.2f}  median {statistics.median(rates):.2f}  max {rates[-1]:.2f}")
    print(f"ratio of medians: {statistics.median(seconds['tiktoken']) / statistics.median(seconds['puna']):.2f}")


if __name__ == "__main__":
    main()
