"""One training step (forward, loss, backward, AdamW) of Puna and of transformers, FP32, same weights, tokens and threads.

    ./puna bench train [--widths 32,64,128] [--threads 2,1] [--rounds 7] [--steps 5] [--no-compile]

8 sequences of 128 tokens, 4 layers (the last without rope), chunks of 32, heads of 16, 4 experts top-1 on layers 2 and
4, byte vocabulary. All processes stay alive and take turns, so that a change of load hits them alike; torch.compile is
measured once it is warm. Losses after the last step are compared. `memory` is the peak beyond weights, gradients and
optimizer state, `RSS` the peak of the process. Below the table: the fused head and loss at 202,048 entries.
"""
import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "build/release/bench/train_bench"
PEER = ROOT / "bench/peers/train_transformers.py"
MODES = {"puna": "puna", "eager": "transformers eager", "compiled": "transformers compiled"}


def save_model(width, folder):
    import torch
    from transformers import Llama4ForCausalLM, Llama4TextConfig
    torch.manual_seed(width)
    config = Llama4TextConfig(
        vocab_size=256, hidden_size=width, intermediate_size=2 * width, intermediate_size_mlp=4 * width,
        num_hidden_layers=4, num_attention_heads=width // 16, num_key_value_heads=width // 32, head_dim=16,
        num_local_experts=4, num_experts_per_tok=1, interleave_moe_layer_step=2, no_rope_layers=[1, 1, 1, 0],
        attention_chunk_size=32, max_position_embeddings=128, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    model = Llama4ForCausalLM(config)
    model.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


class Worker:
    def __init__(self, mode, model, threads):
        command = [PROGRAM, "steps", model, threads] if mode == "puna" else [sys.executable, PEER, model, threads, mode]
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=None if mode == "puna" else subprocess.DEVNULL, text=True)
        self.seconds, self.last = [], None

    def steps(self, count, keep=True):
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args} ended without a result")
        self.last = json.loads(line)
        if keep:
            self.seconds += self.last["seconds"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def measure(width, threads, model, args):
    modes = ["puna", "eager"] + (["compiled"] if width == 128 and not args.no_compile else [])
    workers = {mode: Worker(mode, model, threads) for mode in modes}
    for worker in workers.values():
        worker.steps(5, keep=False)
    for _ in range(args.rounds):
        for worker in workers.values():
            worker.steps(args.steps)
    ours = workers["puna"]
    for mode, worker in workers.items():
        ms = [1000 * s for s in worker.seconds]
        extra = worker.last["peak_bytes"] - worker.last["before_bytes"] - worker.last["state_bytes"]
        worker.extra = extra
        ratio = statistics.median(worker.seconds) / statistics.median(ours.seconds)
        print(f"{width:5} {threads:7}  {MODES[mode]:22} {min(ms):8.1f} {statistics.median(ms):8.1f} {max(ms):8.1f}   "
              f"{ratio:5.2f}x   {extra / 2**20:9.1f} {ours.extra / extra:7.2f} {worker.last['peak_bytes'] / 2**20:8.0f}   "
              f"{worker.last['loss']:.4f}", flush=True)
        worker.close()
    losses = [w.last["loss"] for w in workers.values()]
    if max(losses) - min(losses) > 2e-2:
        sys.exit(f"the losses differ: {losses}")


def main():
    numbers = lambda text: [int(n) for n in text.split(",")]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--widths", type=numbers, default=[32, 64, 128])
    parser.add_argument("--threads", type=numbers, default=[2, 1])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    print("                                       ms a step                  time         memory MiB         RSS")
    print("width threads  program                     min   median      max   / Puna         peak Puna/it      MiB   loss")
    for width in args.widths:
        with tempfile.TemporaryDirectory() as folder:
            save_model(width, folder)
            for threads in args.threads:
                measure(width, threads, folder, args)
    loss = json.loads(subprocess.run([str(PROGRAM), "loss", "202048", "8192", "64"], check=True, capture_output=True,
                                     text=True).stdout)
    print(f"head and loss, {loss['vocabulary']:,} entries, {loss['tokens']:,} tokens, width {loss['width']}: "
          f"{loss['extra_bytes'] / 1e6:.0f} MB beyond weights and their gradient, {loss['adding_bytes'] / 1e6:.0f} MB when "
          f"it adds to a gradient that is there (logits and their gradient: {loss['naive_bytes'] / 1e6:,.0f} MB), "
          f"{loss['seconds']:.1f} s")


if __name__ == "__main__":
    main()
