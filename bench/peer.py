"""Prompt and decode speed of Puna and of llama.cpp on the same weights, in turn, in one table.

    ./puna bench make --preset scout --layers 4 --weights int4 --out scout4
    ./puna bench peer --model scout4 [--prompt 512,2048] [--batch 1,8,32] [--depth 0,4096] [--threads 2] [--rounds 5] [--routing zipf]

llama.cpp comes with the package llama-cpp-python, which is compiled for this machine once (half an hour) unless --library
names a folder with a libllama of the same version. It runs the weights as GGUF, written beside the model, with and without
repacking them; both caches hold BF16 or FP16. All programs stay alive and each round measures one after the other, so
that a change of load hits them alike. Tokens are random and decide the routing: uniform, or skewed as puna bench run has it,
the codes of it being in the weights. Wall time.
"""
import argparse
import ctypes
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PUNA = os.environ.get("PUNA", str(ROOT / "build/release/puna"))
PACKAGE = "llama-cpp-python==0.3.36"
STEPS = 3  # decoded tokens of a sequence in a round, as puna bench run
PIECE = 2048
UBATCH = 512


def import_llama(library):
    """The package, in a folder of its own: what it brings must not change what the tests use."""
    folder = ROOT / "build/peer"
    if not (folder / "llama_cpp").exists():
        print(f"Installing {PACKAGE} in {folder}; compiling it takes long", flush=True)
        environment = os.environ | ({"CMAKE_ARGS": "-DLLAMA_BUILD=OFF"} if library else {"CMAKE_ARGS": "-DGGML_NATIVE=ON"})
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, PACKAGE], check=True,
                       env=environment)
    if library:
        os.environ["LLAMA_CPP_LIB_PATH"] = str(Path(library).resolve())
    sys.path.insert(0, str(folder))
    return importlib.import_module("llama_cpp")


class Tokens:
    """Tokens of one sequence: any, or with digits to the base of the experts that follow src/bench/routing.h."""
    RUN, TAKES_RUN = 16, 0.75

    def __init__(self, config, routing, seed):
        text = config.get("text_config", config)
        self.vocabulary, self.experts, self.routing = text["vocab_size"], text["num_local_experts"], routing
        self.random = random.Random(seed)
        self.groups = 0
        while self.groups < max(1, text["hidden_size"] // 1024) and self.experts ** (self.groups + 1) <= self.vocabulary:
            self.groups += 1
        self.weights = [1 / (digit + 1) for digit in range(self.experts)]
        self.run, self.left = self.digits(), 1 + self.random.randrange(self.RUN)

    def digits(self):
        return self.random.choices(range(self.experts), self.weights, k=self.groups)

    def next(self):
        if self.routing == "uniform":
            return self.random.randrange(self.vocabulary)
        if self.left == 0:
            self.run, self.left = self.digits(), self.RUN
        self.left -= 1
        digits = [own if self.random.random() < self.TAKES_RUN else new for own, new in zip(self.run, self.digits())]
        token, step = sum(digit * self.experts ** g for g, digit in enumerate(digits)), self.experts ** self.groups
        return token + self.random.randrange((self.vocabulary - 1 - token) // step + 1) * step


class Llama:
    def __init__(self, lib, path, repack, threads, cases, tokens):
        self.lib, self.tokens = lib, tokens
        parameters = lib.llama_model_default_params()
        parameters.n_gpu_layers = 0
        parameters.use_extra_bufts = repack
        self.model = lib.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.model:
            sys.exit(f"llama.cpp cannot load {path}")
        parameters = lib.llama_context_default_params()
        parameters.n_ctx = max((length + STEPS + 1) * batch + 64 for kind, length, batch in cases)
        parameters.n_batch, parameters.n_ubatch = PIECE, UBATCH
        parameters.n_seq_max = max(batch for kind, length, batch in cases)
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.kv_unified = True
        self.context = lib.llama_init_from_model(self.model, parameters)
        if not self.context:
            sys.exit("llama.cpp cannot make a context of this size")
        self.memory = lib.llama_get_memory(self.context)
        self.batch = lib.llama_batch_init(PIECE, 0, 1)

    def decode(self, rows):
        """rows: (sequence, position, whether its logits are wanted)"""
        for i, (sequence, position, wanted) in enumerate(rows):
            self.batch.token[i] = self.tokens[sequence].next()
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = wanted
        self.batch.n_tokens = len(rows)
        if self.lib.llama_decode(self.context, self.batch) != 0:
            sys.exit("llama_decode failed")
        self.lib.llama_synchronize(self.context)

    def run_prompt(self, sequence, length):
        for begin in range(0, length, PIECE):
            end = min(begin + PIECE, length)
            self.decode([(sequence, p, p == length - 1) for p in range(begin, end)])

    def seconds(self, case):
        kind, length, batch = case
        self.lib.llama_memory_clear(self.memory, False)
        if kind == "prompt":
            start = time.perf_counter()
            self.run_prompt(0, length)
            return time.perf_counter() - start
        for sequence in range(batch):
            self.run_prompt(sequence, length)
        start = time.perf_counter()
        for step in range(STEPS):
            self.decode([(sequence, length + step, True) for sequence in range(batch)])
        return (time.perf_counter() - start) / STEPS


class Puna:
    def __init__(self, args):
        command = [PUNA, "bench", "run", "--model", args.model,
                   "--prompt", args.prompt, "--batch", args.batch, "--depth", args.depth, "--threads", args.threads,
                   "--rounds", args.rounds, "--routing", args.routing, "--wait", "--json"]
        self.process = subprocess.Popen([str(c) for c in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.wait()

    def wait(self):
        line = self.process.stdout.readline()
        if line.strip() not in ("ready", "{"):
            sys.exit(f"puna bench run ended: {line.strip()}")
        return line

    def round(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.last = self.wait()

    def result(self):
        return json.loads(self.last + self.process.stdout.read())


def cases_of(args):
    numbers = lambda text: [int(n) for n in text.split(",") if int(n) > 0]
    depths = [int(n) for n in args.depth.split(",")]
    return [("prompt", n, 1) for n in numbers(args.prompt)] + [
        ("decode", depth, batch) for depth in depths for batch in numbers(args.batch)]


def gguf_of(args):
    path = Path(f"{args.model.rstrip('/')}.{args.type}.gguf")
    if not path.exists():
        print(f"Writing {path}", flush=True)
        with tempfile.NamedTemporaryFile("w", suffix=".toml") as rules:  # the head too, as puna bench make has it
            rules.write(f'preset = "{args.type}"\nhead = "{args.type}"\n')
            rules.flush()
            subprocess.run([PUNA, "quantize", "--model", args.model, "--to", rules.name, "--format", "gguf", "--out", str(path)],
                           check=True)
    return path


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog="\n".join(__doc__.splitlines()[2:]),
                                     formatter_class=argparse.RawDescriptionHelpFormatter, prog="puna bench peer")
    parser.add_argument("--model", required=True, help="directory that puna bench make wrote")
    parser.add_argument("--type", default="q4_0", choices=["q4_0", "q4_k", "q8_0"], help="of the GGUF file")
    parser.add_argument("--prompt", default="512")
    parser.add_argument("--batch", default="1,8,32")
    parser.add_argument("--depth", default="0")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--routing", default="uniform", choices=["uniform", "zipf"])
    parser.add_argument("--repack", default="both", choices=["both", "on", "off"])
    parser.add_argument("--library", help="folder with libllama.so and the libggml that it needs")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.rounds < 1:
        parser.error("--rounds is at least 1")
    cases = cases_of(args)
    path = gguf_of(args)
    lib = import_llama(args.library)
    quiet = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda level, text, data: None)
    lib.llama_log_set(quiet, ctypes.c_void_p(0))
    lib.llama_backend_init()
    repacks = {"both": [True, False], "on": [True], "off": [False]}[args.repack]
    config = json.loads((Path(args.model) / "config.json").read_text())
    tokens = lambda: [Tokens(config, args.routing, seed) for seed in range(max(batch for kind, length, batch in cases))]
    peers = {f"llama.cpp {'repacked' if r else 'as stored'}": Llama(lib, path, r, args.threads, cases, tokens())
             for r in repacks}
    puna = Puna(args)
    seconds = {(name, case): [] for name in peers for case in cases}
    for round in range(-1, args.rounds):  # the first is not counted
        puna.round()
        for name, peer in peers.items():
            for case in cases:
                taken = peer.seconds(case)
                if round >= 0:
                    seconds[name, case].append(taken)
    ours = puna.result()
    rows = []
    for case, one in zip(cases, ours["cases"]):
        kind, length, batch = case
        tokens = length if kind == "prompt" else batch
        row = {"case": one["name"], "puna": one["tokens_per_second"], "fraction_of_bound": one["fraction_of_bound"]}
        for name in peers:
            speeds = [tokens / s for s in seconds[name, case]]
            row[name] = {"min": min(speeds), "median": statistics.median(speeds), "max": max(speeds)}
        row["ratio"] = row["puna"]["median"] / max(row[name]["median"] for name in peers)
        rows.append(row)
    if args.json:
        print(json.dumps({"model": args.model, "gguf": str(path), "threads": args.threads, "cases": rows,
                          "routing": ours["routing"],
                          "read_bytes_per_second": ours["read_bytes_per_second"],
                          "int8_operations_per_second": ours["int8_operations_per_second"]}, indent=2))
        return
    spread = lambda s: f"{s['min']:8.2f} {s['median']:8.2f} {s['max']:8.2f}"
    print(f"{args.threads} threads, {Path(args.model).name}, {path.name}; reading memory "
          f"{ours['read_bytes_per_second']['median'] / 1e9:.1f} GB/s, INT8 dots "
          f"{ours['int8_operations_per_second']['median'] / 1e9:.0f} GOP/s (medians of the same run)\n"
          f"routing: {ours['routing']}\n")
    print(f"{'tokens/s':18} {'program':22} {'min':>8} {'median':>8} {'max':>8}   {'Puna / it':>9}   of Puna's bound")
    for row in rows:
        print(f"{row['case']:18} {'Puna':22} {spread(row['puna'])}   {'':9}   {row['fraction_of_bound']['median']:.2f}")
        for name in peers:
            print(f"{'':18} {name:22} {spread(row[name])}   {row['puna']['median'] / row[name]['median']:8.2f}x")


if __name__ == "__main__":
    main()
