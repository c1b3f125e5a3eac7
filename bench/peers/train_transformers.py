"""Training steps of transformers for bench/train.py: the protocol of `train_bench steps`, on the same checkpoint.

    python bench/peers/train_transformers.py MODEL THREADS eager|compiled
"""
import json
import resource
import sys
import time
from pathlib import Path

import torch
from transformers import Llama4ForCausalLM

SEQUENCES, LENGTH = 8, 128


def status_bytes(field):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def token_batches(vocabulary):
    state = 1
    while True:
        ids = []
        for _ in range(SEQUENCES * LENGTH):
            state = (state * 1103515245 + 12345) % 2**31
            ids.append((state >> 16) % vocabulary)
        yield torch.tensor(ids).view(SEQUENCES, LENGTH)


def main():
    path, threads, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(threads)
    torch.ones(256, 256) @ torch.ones(256, 256)
    before = status_bytes("VmRSS")
    model = Llama4ForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    forward = torch.compile(model) if mode == "compiled" else model
    state = 4 * sum(p.nbytes for p in model.parameters())
    Path("/proc/self/clear_refs").write_text("5")
    batches = token_batches(model.config.vocab_size)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            ids = next(batches)
            start = time.perf_counter()
            loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            seconds.append(time.perf_counter() - start)
        print(json.dumps({"seconds": seconds, "loss": loss.item(), "peak_bytes": status_bytes("VmHWM"),
                          "before_bytes": before, "state_bytes": state}), flush=True)


if __name__ == "__main__":
    main()
