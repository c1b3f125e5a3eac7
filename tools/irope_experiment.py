#!/usr/bin/env python3
"""Trains the models of recipes/experiments/irope, measures them by length and draws what came out.

Run it by recipes/experiments/irope/run.sh. The environment variable PUNA names the program; ./puna by default. A run
whose results are there is not done again; --fresh forgets them.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import shutil
import subprocess
import zlib

from irope_picture import draw

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes/experiments/irope"
OUT = ROOT / "build/experiments/irope"  # where the recipes look for text.jsonl
PUNA = os.environ.get("PUNA", str(ROOT / "puna"))
MODELS = ["interleaved", "control"]
MOMENTS = ["before", "after"]
TRAINED_AT, EXTENDED_TO = 128, 512
LENGTHS = [128, 256, 512, 1024, 2048]
PRETRAIN_STEPS = 7000
ITEMS, QUERIES = 100, 21  # queries at the end of a generated document
HELD_OUT_BYTES = 24_000


def puna(*arguments):
    """Output of a command; its progress goes to the screen."""
    done = subprocess.run([PUNA, *map(str, arguments)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"irope: 'puna {' '.join(map(str, arguments))}' failed with status {done.returncode}")
    return done.stdout


def write_text():
    """The project's own sources and documents; one file in twelve is held out."""
    files = sorted([*ROOT.glob("src/**/*.cc"), *ROOT.glob("src/**/*.h"), *ROOT.glob("docs/*.md")])
    held_out = [f for f in files if zlib.crc32(str(f.relative_to(ROOT)).encode()) % 12 == 0]
    with open(OUT / "text.jsonl", "w", encoding="utf-8") as out:
        for file in files:
            if file not in held_out:
                out.write(json.dumps({"text": file.read_text(encoding="utf-8")}) + "\n")
    text = "\n".join(f.read_text(encoding="utf-8") for f in held_out)
    (OUT / "held-out.txt").write_text(text[:HELD_OUT_BYTES], encoding="utf-8")


def write_tasks():
    """A file of questions per length: a document up to its first query, which lacks its value."""
    for length in LENGTHS:
        where = OUT / f"pairs-{length}"
        puna("data", "generate", "retrieval", "--split", "held-out", "--count", ITEMS, "--length",
             length + 3 * (QUERIES - 1), "--out", where)
        with open(OUT / f"retrieval-{length}.jsonl", "w", encoding="utf-8") as out:
            header = {"kind": "exact_match", "format": "raw", "max_tokens": 1}
            out.write(json.dumps({"task": header}) + "\n")
            for line in open(where / "retrieval-held-out.jsonl", encoding="utf-8"):
                told = json.loads(line)["text"].split("\n")[: 1 - QUERIES]
                key, value = told[-1].split(" ")
                out.write(json.dumps({"prompt": "\n".join([*told[:-1], key]), "answer": value}) + "\n")


def measure(model):
    """{"loss": by length, "retrieval": by length}. The loss at a length is that of tokens with half of it to all of it
    before them in the window; the windows overlap by half, so that it is the same tokens at every length."""
    loss, retrieval = {}, {}
    for length in LENGTHS:
        seen = json.loads(puna("perplexity", "--model", model, "--threads", 1, "--text", OUT / "held-out.txt", "--context",
                               length, "--stride", length // 2, "--by-position", "--json"))
        loss[length] = next(b["mean_nll"] for b in seen["by_position"] if b["first"] == length // 2)
        task = OUT / f"retrieval-{length}.jsonl"
        result = json.loads(puna("eval", "--model", model, "--threads", 1, "--task", task, "--json"))
        retrieval[length] = result["tasks"][0]["measures"]["accuracy"]["value"]
    return {"loss": loss, "retrieval": retrieval}


def run(model, seed, overrides):
    """Trains one model and measures it before and after the extension."""
    where = OUT / f"{model}-{seed}"
    results = where / "results.json"
    if results.exists():
        return json.loads(results.read_text())
    shutil.rmtree(where, ignore_errors=True)
    puna("train", RECIPES / f"{model}.toml", f"out={where}", f"seed={seed}", *overrides)
    found = {}
    for moment, step in zip(MOMENTS, [PRETRAIN_STEPS, -1]):
        exported = where / f"exported-{moment}"
        puna("export", where, "--step", step, "--out", exported, "--dtype", "fp32")
        found[moment] = measure(exported)
    results.write_text(json.dumps(found))
    return json.loads(results.read_text())


def over_seeds(runs, model, moment, what, length):
    return [r[moment][what][str(length)] for (m, _), r in runs.items() if m == model]


def table(runs):
    lines = []
    for what, title in [("loss", "loss on held-out text, nats per token"), ("retrieval", "pairs found again")]:
        lines.append(f"{title + ' at':<40}" + "".join(f"{n:>16}" for n in LENGTHS))
        for model in MODELS:
            for moment in MOMENTS:
                cells = []
                for length in LENGTHS:
                    v = over_seeds(runs, model, moment, what, length)
                    mean, half = sum(v) / len(v), (max(v) - min(v)) / 2
                    cells.append(f"{mean:.3f}" + (f" +-{half:.3f}" if len(v) > 1 else ""))
                lines.append(f"{model + ', ' + moment + ' extension':<40}" + "".join(f"{c:>16}" for c in cells))
    return "\n".join(lines)


def criteria(runs):
    """What was expected, the number of every seed, and whether all of them meet it."""

    def ratios(model, moment, length):
        far = over_seeds(runs, model, moment, "loss", length)
        return [a / b for a, b in zip(far, over_seeds(runs, model, moment, "loss", TRAINED_AT))]

    eight, four = 8 * TRAINED_AT, 4 * TRAINED_AT
    rows = [
        ("interleaved, before: loss at 8x over loss at 1x <= 1.05", ratios("interleaved", "before", eight), 1.05, False),
        ("control, before: loss at 8x over loss at 1x >= 1.2", ratios("control", "before", eight), 1.2, True),
        ("interleaved, after: pairs found at 4x >= 0.9", over_seeds(runs, "interleaved", "after", "retrieval", four), 0.9, True),
    ]
    lines = []
    for text, values, bound, at_least in rows:
        met = all(v >= bound if at_least else v <= bound for v in values)
        lines.append(f"{text:<60}{', '.join(f'{v:.3f}' for v in values):>24}   {'met' if met else 'NOT MET'}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1", help="with commas between")
    parser.add_argument("--picture", default=str(OUT / "irope.svg"))
    parser.add_argument("--jobs", type=int, default=1, help="models trained at the same time")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("overrides", nargs="*", help="key=value for puna train")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True, exist_ok=True)
    if not (OUT / "held-out.txt").exists():
        write_text()
        write_tasks()
    seeds = [int(s) for s in options.seeds.split(",")]
    wanted = [(model, seed) for seed in seeds for model in MODELS]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        runs = dict(zip(wanted, pool.map(lambda which: run(*which, options.overrides), wanted)))
    print(table(runs) + "\n\n" + criteria(runs))
    mean = lambda *which: [sum(v) / len(v) for v in (over_seeds(runs, *which, n) for n in LENGTHS)]
    panels = []
    for what, title in [("loss", "Loss on held-out text (nats per token)"), ("retrieval", "Pairs found again (share)")]:
        lines = {(m, t): mean(m, t, what) for m in MODELS for t in MOMENTS}
        panels.append((title, lines))
    pathlib.Path(options.picture).write_text(draw(LENGTHS, panels, [TRAINED_AT, EXTENDED_TO]), encoding="utf-8")
    print(f"wrote {options.picture}")


if __name__ == "__main__":
    main()
