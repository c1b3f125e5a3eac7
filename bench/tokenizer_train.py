"""Puna's tokenizer training against the Hugging Face tokenizers library: the same text and size, the learnt tokens compared.

    ./puna bench tokenizer_train [--megabytes 100] [--vocab-size 32000] [--rounds 3] [--threads N]

The text is what the machine has: Python's sources, Perl's modules and documents, /usr/share/doc, this repository; when that is
not enough it is taken again with its letters shifted, so that the words are new. The library gets the documents as strings in
memory; Puna reads them from files and starts as a program. The two run in turn, so that a change of load hits both.
"""
import argparse
import json
import os
import statistics
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def sources():
    for folder in (Path(sysconfig.get_paths()["stdlib"]), ROOT / "src", ROOT / "docs", Path("/usr/share/perl"), Path("/usr/share/doc"),
                   Path(sysconfig.get_paths()["purelib"])):
        for path in sorted(folder.rglob("*")) if folder.exists() else []:
            if path.is_file() and path.suffix in (".py", ".cc", ".h", ".md", ".txt", ".pod", ".pm", ".pl", ".html", ".rst"):
                yield path


def documents(num_bytes):
    """Texts of together at least `num_bytes` of UTF-8."""
    texts, size = [], 0
    for path in sources():
        text = path.read_bytes().decode("utf-8", "ignore").replace("\0", "")
        if text:
            texts.append(text)
            size += len(text.encode())
        if size >= num_bytes:
            return texts
    for shift in range(1, len(LETTERS)):
        table = str.maketrans(LETTERS, LETTERS[shift:] + LETTERS[:shift])
        for text in texts[:]:
            texts.append(text.translate(table))
            size += len(text.encode())
            if size >= num_bytes:
                return texts
    return texts


def train_library(texts, pattern, ranks):
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    trainer = trainers.BpeTrainer(vocab_size=ranks, min_frequency=2, max_token_length=129, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    start = time.perf_counter()
    tokenizer.train_from_iterator(texts, trainer)
    return time.perf_counter() - start, tokenizer.get_vocab()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=os.environ.get("PUNA", ROOT / "build/release/puna"))
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--vocab-size", type=int, default=32000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(args.threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    import tokenizers
    texts = documents(int(args.megabytes * 1e6))
    seconds = {"puna": [], "tokenizers": []}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "text").mkdir()
        for i, text in enumerate(texts):
            (folder / "text" / f"{i:06}").write_bytes(text.encode())
        for i in range(args.rounds):
            out = folder / f"out{i}"
            start = time.perf_counter()
            subprocess.run([args.program, "tokenizer", "train", "--vocab-size", str(args.vocab_size), "--specials", "compact", "--threads",
                            str(args.threads), "--out", out, "--json", folder / "text"], check=True, capture_output=True)
            seconds["puna"].append(time.perf_counter() - start)
            ours = json.loads((out / "tokenizer.json").read_text())
            pattern = ours["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
            took, theirs = train_library(texts, pattern, len(ours["model"]["vocab"]))
            seconds["tokenizers"].append(took)
    same = "equal" if ours["model"]["vocab"] == theirs else "DIFFERENT"
    load = ", ".join(f"{x:.1f}" for x in os.getloadavg())
    print(f"{sum(len(t.encode()) for t in texts) / 1e6:.1f} MB in {len(texts)} documents, {args.vocab_size:,} tokens, learnt tokens {same}, "
          f"{args.threads} threads, {args.rounds} rounds in turn; tokenizers {tokenizers.__version__}; load {load}")
    for name, times in seconds.items():
        print(f"{name:10} seconds: min {min(times):.2f}  median {statistics.median(times):.2f}  max {max(times):.2f}")
    ratios = [b / a for a, b in zip(seconds["puna"], seconds["tokenizers"])]
    print(f"times as fast: min {min(ratios):.1f}  median {statistics.median(ratios):.1f}  max {max(ratios):.1f}")


if __name__ == "__main__":
    main()
