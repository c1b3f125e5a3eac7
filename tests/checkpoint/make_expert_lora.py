"""Makes tests/golden/lora_experts with the real PEFT: LoRA on the fused experts (target_parameters), q_proj and a shared expert's linear.

    make_expert_lora.py

Base: tests/golden/data/ckpt/a_scout. Files: adapter_config.json, adapter_model.safetensors, and golden.safetensors with
ids, logits (fp32, with the adapter) and delta.<parameter>[<expert>], the change of one expert's weight as PEFT computes it.
The ranks and alphas differ by target (rank_pattern, alpha_pattern) and rslora is on.
"""
import json, pathlib
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Llama4ForConditionalGeneration

root = pathlib.Path(__file__).parents[1] / "golden"
out = root / "lora_experts"
base = Llama4ForConditionalGeneration.from_pretrained(root / "data/ckpt/a_scout", dtype=torch.float32, attn_implementation="eager")
config = LoraConfig(r=2, lora_alpha=3, use_rslora=True, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
                    target_modules=r"language_model\.model\.layers\.\d+\.(self_attn\.q_proj|feed_forward\.shared_expert\.up_proj)",
                    target_parameters=["feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"],
                    rank_pattern={"q_proj": 4, r"experts\.down_proj": 3}, alpha_pattern={r"layers\.2\..*gate_up_proj": 5, "up_proj": 7})
model = get_peft_model(base, config).eval()
generator = torch.Generator().manual_seed(7)
with torch.no_grad():
    for name, p in model.named_parameters():
        if "lora_" in name:
            p.copy_(torch.randn(p.shape, generator=generator) * (0.3 / p.shape[1] ** 0.5))
    ids = load_file(str(root / "data/goldens/a_scout/text.safetensors"))["ids.40"].long()
    golden = {"ids": ids.to(torch.int32), "logits": model(input_ids=ids[None], use_cache=False).logits[0].contiguous()}
    experts = model.base_model.model.language_model.model.layers[2].feed_forward.experts
    for wrapper in (experts, experts.base_layer):
        name = f"model.layers.2.feed_forward.experts.{wrapper.parameter_name}"
        golden[f"delta.{name}[1]"] = wrapper.get_delta_weight("default")[1].contiguous()
model.save_pretrained(str(out))
(out / "README.md").unlink(missing_ok=True)
saved = json.loads((out / "adapter_config.json").read_text())
saved["base_model_name_or_path"] = "ckpt/a_scout"
(out / "adapter_config.json").write_text(json.dumps(saved, indent=2) + "\n")
save_file(golden, str(out / "golden.safetensors"))
