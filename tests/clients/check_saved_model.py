"""Opens checkpoints that Puna saved with the real transformers and compares their logits with the goldens.

    check_saved_model.py MODEL_DIR,GOLDEN.safetensors,LOGITS_KEY ...

LOGITS_KEY is "logits.40" or "logits_q8_0.40"; the token ids are "ids.40". Fails above 2e-4, or on any tensor that transformers
misses or does not expect.
"""
import json, pathlib, sys
import torch
from safetensors.torch import load_file
from transformers import Llama4ForCausalLM, Llama4ForConditionalGeneration

worst = 0.0
for job in sys.argv[1:]:
    model_dir, golden_file, key = job.split(",")
    config = json.loads((pathlib.Path(model_dir) / "config.json").read_text())
    cls = Llama4ForConditionalGeneration if "vision_config" in config else Llama4ForCausalLM
    model, info = cls.from_pretrained(model_dir, dtype=torch.float32, attn_implementation="eager", output_loading_info=True)
    problems = {k: v for k, v in info.items() if v}
    assert not problems, (model_dir, problems)
    golden = load_file(golden_file)
    ids = golden["ids." + key.split(".")[1]].long()
    with torch.no_grad():
        logits = model(input_ids=ids[None], use_cache=False).logits[0]
    difference = float((logits - golden[key]).abs().max())
    print(f"{model_dir}: max logit difference {difference:.2e}")
    assert difference <= 2e-4, (model_dir, difference)
