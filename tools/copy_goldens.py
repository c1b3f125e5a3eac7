"""Copies the part of a golden set that the repository keeps into tests/golden/data (at most 25 MB).

    python tools/copy_goldens.py ORACLE_SET_DIR

Left out: the full-vocabulary checkpoint, large duplicates, and every file with Meta's vocabulary in it (tokenizer files; GGUF
files are copied without their tokenizer keys). Tests run on the whole set when PUNA_GOLDEN_DIR names it.
"""
import fnmatch, shutil, sys
from pathlib import Path

source, target = Path(sys.argv[1]), Path(__file__).resolve().parent.parent / "tests/golden/data"
LEFT_OUT = ["*e_fullvocab*", "*/tokenizer.json", "*/tokenizer.model", "*_canvas.png", "*_global.png", "MANIFEST.json", "compare.py",
            "goldens/b_maverick/mm_[23]*", "goldens/b_maverick/vision.safetensors", "goldens/b_maverick/trace.safetensors", "goldens/a_scout/mm_3*",
            "quant/fp8_fbgemm_b/*", "goldens/c_top2/mm_[23]*",
            "training/b_maverick/grads_step1.safetensors", "training/b_maverick/image_grads.json", "gguf/d_text-f32.gguf",
            "tokenizer/mini_encode.json"]


def copy_gguf(src, dst):
    import gguf
    reader = gguf.GGUFReader(src)
    writer = gguf.GGUFWriter(dst, "llama4")
    for field in reader.fields.values():
        if field.name.startswith(("GGUF.", "tokenizer.")) or field.name == "general.architecture":
            continue
        writer.add_key_value(field.name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    for t in reader.tensors:
        writer.add_tensor(t.name, t.data, raw_dtype=t.tensor_type)
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()


shutil.rmtree(target, ignore_errors=True)
total = 0
for f in sorted(p for p in source.rglob("*") if p.is_file()):
    name = f.relative_to(source).as_posix()
    if any(fnmatch.fnmatch(name, pattern) for pattern in LEFT_OUT):
        continue
    out = target / name
    out.parent.mkdir(parents=True, exist_ok=True)
    copy_gguf(f, out) if f.suffix == ".gguf" else shutil.copyfile(f, out)
    total += out.stat().st_size
print(f"{total / 1e6:.1f} MB in {target}")
sys.exit(total > 25e6)
