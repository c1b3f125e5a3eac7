"""Writes the held-out evaluation of models/puna-demo: python3 tools/make_demo_eval.py PUNA OUT

PUNA is the built program, OUT the directory for the task files (models/puna-demo/eval). Sums, pictures and texts to look
things up in are the held-out split of the generators, which training never sees; questions about Puna and unrelated
ones are the held-out lists of recipes/demo/facts.jsonl and unknown.jsonl. The same sources give the same files.
"""

import base64
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes" / "demo"
SEED = 4096
LOOKUP_LENGTHS = (256, 512, 1216)  # roughly counted: the longest prompt has four times the 256 tokens that training begins with


def generated(puna, kind, count, **options):
    """Pairs of a question's content and the answer; pictures as base64."""
    with tempfile.TemporaryDirectory() as folder:
        command = [puna, "data", "generate", kind, "--count", str(count), "--seed", str(SEED), "--split", "held-out"]
        command += [f"--{name}={value}" for name, value in options.items()]
        subprocess.run([*command, "--out", folder], check=True, stdout=subprocess.DEVNULL)
        for line in (pathlib.Path(folder) / f"{kind}-held-out.jsonl").read_text().splitlines():
            question, answer = json.loads(line)["messages"]
            content = question["content"]
            for part in content if isinstance(content, list) else []:
                if part["type"] == "image":
                    data = (pathlib.Path(folder) / part.pop("path")).read_bytes()
                    part["data"] = base64.b64encode(data).decode()
            yield content, answer["content"]


def item(content, **expected):
    if isinstance(content, str):
        return {"prompt": content, **expected}
    return {"messages": [{"role": "user", "content": content}], **expected}


def arithmetic(puna):
    for question, answer in generated(puna, "arithmetic", 300):
        number = re.search(r" (-?\d+)\.$", answer)
        if number:
            yield item(question, kind="numeric", answer=int(number[1]))
        elif answer.endswith("equal."):
            yield item(question, kind="contains", contains=["equal"])
        else:
            right, wrong = ("yes", "no") if answer.endswith("Yes.") else ("no", "yes")
            yield item(question, kind="contains", contains=[right], forbidden=[wrong])


def pictures(puna):
    for question, answer in generated(puna, "pictures", 200):
        yield item(question, kind="exact_match", answer=answer)


def lookup(puna):
    for length in LOOKUP_LENGTHS:
        for question, answer in generated(puna, "lookup", 50, length=length):
            if answer.endswith("does not say."):
                yield item(question, kind="contains", contains=["does not say"])
            elif answer.endswith("."):
                yield item(question, kind="contains", contains=[answer.rstrip(".")])
            else:
                yield item(question, kind="exact_match", answer=answer)


def lines_of(name):
    return [json.loads(line) for line in (RECIPES / name).read_text().splitlines()]


def about_puna(_):
    for fact in lines_of("facts.jsonl"):
        for number, question in enumerate(fact["held_out"], 1):
            yield {"id": f"{fact['id']}-{number}", "prompt": question, "contains": fact["facts"]}


def unknown(_):
    for line in lines_of("unknown.jsonl"):
        if "held_out" in line:
            yield {"prompt": line["held_out"], "contains": ["do not know"]}


TASKS = {
    "puna": ({"kind": "contains", "title": "Questions about Puna", "threshold": 0.85, "max_tokens": 64}, about_puna),
    "pictures": ({"title": "Questions about pictures", "threshold": 0.95, "max_tokens": 48}, pictures),
    "arithmetic": ({"title": "Numbers up to three digits", "threshold": 0.95, "max_tokens": 112}, arithmetic),
    "lookup": ({"title": "Facts and copies from a text", "threshold": 0.95, "max_tokens": 384}, lookup),
    "unknown": ({"kind": "contains", "title": "Unrelated questions", "threshold": 0.9, "max_tokens": 48}, unknown),
}


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__.splitlines()[0])
    out = pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    for name, (header, items) in TASKS.items():
        lines = [json.dumps({"task": header}), *(json.dumps(one) for one in items(sys.argv[1]))]
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        print(f"{out / name}.jsonl: {len(lines) - 1} items")


if __name__ == "__main__":
    main()
