"""Compares what `puna golden` wrote with the golden values that are kept in JSON. Called by tools/check_goldens.sh.

    check_golden_json.py greedy TEXT.json CANDIDATE             greedy.N against the continuation of each prompt
    check_golden_json.py greedy-mm MM.json CASE CANDIDATE       greedy.all against the continuation of one image prompt
    check_golden_json.py grads GOLDEN TRAIN.json CANDIDATE      first-step loss, and relative RMS of every gradient
    check_golden_json.py image-grads IMAGE_GRADS.json CANDIDATE loss, norm and samples of every gradient

A greedy token may differ where the golden margin between the two best logits is below 1e-3; what follows it is not compared.
"""
import json
import sys

from safetensors.torch import load_file


def check_greedy(tokens, margins, mine, what):
    for i, (expected, margin, got) in enumerate(zip(tokens, margins, mine, strict=True)):
        if expected != got:
            if margin < 1e-3:
                return
            sys.exit(f"{what}: token {i} is {got}, expected {expected} (margin {margin})")


def greedy(text_json, candidate):
    golden, mine = json.load(open(text_json))["greedy"], load_file(candidate)
    for n, g in golden.items():
        check_greedy(g["tokens"], g["margins"], mine[f"greedy.{n}"].tolist(), f"greedy.{n}")
    print(f"{len(golden)} continuations")


def greedy_mm(mm_json, case, candidate):
    golden = json.load(open(mm_json))[case]
    check_greedy(golden["greedy"], golden["margins"], load_file(candidate)["greedy.all"].tolist(), case)
    print(f"{len(golden['greedy'])} tokens")


def grads(golden_file, train_json, candidate):
    golden, mine, worst = load_file(golden_file), load_file(candidate), 0.0
    loss = json.load(open(train_json))["steps"][0]["loss"]
    if not abs(float(mine["loss"]) - loss) <= 1e-4:
        sys.exit(f"loss {float(mine['loss'])}, expected {loss}")
    for name, g in golden.items():
        scale = g.double().norm()
        error = float((mine[name].double() - g.double()).norm() / scale) if scale > 0 else float(mine[name].abs().max())
        if not error <= 1e-4:
            sys.exit(f"{name}: relative RMS {error:.3e}")
        worst = max(worst, error)
    print(f"{len(golden)} gradients, worst relative RMS {worst:.2e}")


def image_grads(golden_json, candidate):
    golden, mine, worst = json.load(open(golden_json)), load_file(candidate), 0.0
    if not abs(float(mine["loss"]) - golden["loss"]) <= 1e-4:
        sys.exit(f"loss {float(mine['loss'])}, expected {golden['loss']}")
    for name, g in golden["grads"].items():
        if name not in mine:
            sys.exit(f"no gradient of {name}")
        flat = mine[name].double().reshape(-1)
        if list(mine[name].shape) != g["shape"]:
            sys.exit(f"{name}: shape {list(mine[name].shape)}, expected {g['shape']}")
        scale = max(g["l2"], 1e-12)
        rms = scale / flat.numel() ** 0.5
        errors = [abs(float(flat.norm()) - g["l2"]) / scale]
        errors += [abs(float(flat[i]) - v) / max(abs(v), rms) for i, v in zip(g["index"], g["value"], strict=True)]
        if not max(errors) <= 1e-3:
            sys.exit(f"{name}: relative error {max(errors):.3e}")
        worst = max(worst, max(errors))
    print(f"{len(golden['grads'])} gradients, worst relative error {worst:.2e}")


if __name__ == "__main__":
    {"greedy": greedy, "greedy-mm": greedy_mm, "grads": grads, "image-grads": image_grads}[sys.argv[1]](*sys.argv[2:])
