"""Prefill and decode speed of Puna and of transformers on the same checkpoint, machine, dtype and threads.

    python bench/peers/prefill_transformers.py build/release/bench/model_bench MODEL [prompt tokens] [threads]

Prints one line per engine and the ratio Puna / transformers. Both see the same token ids, in BF16.
"""
import json
import statistics
import subprocess
import sys
import time

import torch
from transformers import AutoConfig, Llama4ForCausalLM, Llama4ForConditionalGeneration


def median_seconds(repeats, run):
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def transformers_speed(path, prompt, attention):
    multimodal = AutoConfig.from_pretrained(path).model_type == "llama4"
    cls = Llama4ForConditionalGeneration if multimodal else Llama4ForCausalLM
    model = cls.from_pretrained(path, dtype=torch.bfloat16, attn_implementation=attention).eval()
    vocab = model.config.get_text_config().vocab_size
    ids = (torch.arange(prompt) % (vocab // 2))[None]
    with torch.inference_mode():
        prefill = median_seconds(9, lambda: model(input_ids=ids, use_cache=False))
        cache = model(input_ids=ids, use_cache=True).past_key_values

        def decode():
            for i in range(16):
                model(input_ids=ids[:, i:i + 1], past_key_values=cache, use_cache=True, logits_to_keep=1)
        return prompt / prefill, 16 / median_seconds(3, decode)


if __name__ == "__main__":
    program, path = sys.argv[1:3]
    prompt = int(sys.argv[3]) if len(sys.argv) > 3 else 512
    threads = int(sys.argv[4]) if len(sys.argv) > 4 else torch.get_num_threads()
    torch.set_num_threads(threads)
    puna = json.loads(subprocess.run([program, path, str(prompt), "bf16", str(threads)], check=True,
                                     capture_output=True, text=True).stdout)
    print(f"puna                  prefill {puna['prefill_tokens_per_s']:10.0f} tok/s   decode {puna['decode_tokens_per_s']:8.0f} tok/s")
    best = [0.0, 0.0]
    for attention in ("eager", "sdpa"):
        speed = transformers_speed(path, prompt, attention)
        best = [max(a, b) for a, b in zip(best, speed)]
        print(f"transformers ({attention:5s})  prefill {speed[0]:10.0f} tok/s   decode {speed[1]:8.0f} tok/s")
    ratio = [puna["prefill_tokens_per_s"] / best[0], puna["decode_tokens_per_s"] / best[1]]
    print(f"ratio to the faster   prefill {ratio[0]:10.2f}x        decode {ratio[1]:8.2f}x")
