#!/bin/sh
# Runs every golden file of a set through puna's own commands and compares tensor by tensor.
#   tools/check_goldens.sh SETDIR [WORKDIR]
# SETDIR holds ckpt/ goldens/ lora/ quant/ gguf/ training/ images/ and compare.py. PUNA and PYTHON choose the programs.
# docs/GOLDEN.md explains each command.
set -u
set_dir=$(cd "${1:?usage: tools/check_goldens.sh SETDIR [WORKDIR]}" && pwd) || exit 2
root=$(cd "$(dirname "$0")/.." && pwd)
work=${2:-$(mktemp -d)}
mkdir -p "$work"
puna=${PUNA:-$root/puna}
python=${PYTHON:-$root/.venv/bin/python}
compare=${COMPARE:-$set_dir/compare.py}
[ -f "$compare" ] || compare=$set_dir/../compare.py
passed=0 failed=0

# check NAME GOLDEN ATOL ONLY -- golden flags...: writes a candidate and compares it with GOLDEN.
check() {
  name=$1 golden=$2 atol=$3 only=$4
  shift 5
  out=$work/$(echo "$name" | tr '/ ' '__').safetensors
  if ! "$puna" golden "$@" --out "$out" >"$work/log" 2>&1; then
    echo "FAIL $name: $(tail -1 "$work/log")"
    failed=$((failed + 1))
  elif "$python" "$compare" "$golden" "$out" --atol "$atol" --only "$only" >"$work/log" 2>&1; then
    echo "ok   $name  ($(grep -c '^ok' "$work/log") tensors, worst $(sed -n 's/.* max \([^ ]*\).*/\1/p' "$work/log" | sort -g | tail -1))"
    passed=$((passed + 1))
  else
    echo "FAIL $name"
    grep -v '^ok' "$work/log" | head -8 | sed 's/^/     /'
    failed=$((failed + 1))
  fi
}

# python_check NAME ARGS...: a comparison that tools/check_golden_json.py makes.
python_check() {
  name=$1
  shift
  if "$python" "$root/tools/check_golden_json.py" "$@" >"$work/log" 2>&1; then
    echo "ok   $name  ($(tail -1 "$work/log"))"
    passed=$((passed + 1))
  else
    echo "FAIL $name: $(tail -1 "$work/log")"
    failed=$((failed + 1))
  fi
}

for dir in "$set_dir"/goldens/*/; do
  variant=$(basename "$dir")
  ckpt=$set_dir/ckpt/$variant
  sampled=
  grep -q sample_cols "$dir/text.safetensors" && sampled=--sampled
  check "$variant text" "$dir/text.safetensors" 2e-4 "" -- --ckpt "$ckpt" --ids "$dir/text.safetensors" --all-keys $sampled
  check "$variant text in pieces of 7" "$dir/text.safetensors" 2e-4 "" -- --ckpt "$ckpt" --ids "$dir/text.safetensors" \
    --all-keys $sampled --pieces 7
  check "$variant trace" "$dir/trace.safetensors" 2e-4 "" -- --ckpt "$ckpt" --ids "$dir/trace.safetensors" --key ids --trace
  check "$variant greedy" "$dir/text.safetensors" 2e-4 ids -- --ckpt "$ckpt" --ids "$dir/text.safetensors" --all-keys --greedy 32
  python_check "$variant greedy tokens" greedy "$dir/text.json" "$work/${variant}_greedy.safetensors"
  [ -f "$dir/mm.json" ] || continue
  check "$variant vision" "$dir/vision.safetensors" 2e-4 "" -- --ckpt "$ckpt" --pixels "$dir/vision.safetensors" --vision-trace
  for golden in "$dir"/mm_?.safetensors; do
    case=$(basename "$golden" .safetensors)
    check "$variant $case" "$golden" 2e-4 "" -- --ckpt "$ckpt" --ids "$golden" --pixels "$golden" --trace $sampled --greedy 16
    python_check "$variant $case greedy" greedy-mm "$dir/mm.json" "$case" "$work/${variant}_$case.safetensors"
    # One level of 255 is 0.0079 after normalisation; bf16 rounds it to at most 0.0118.
    check "$variant $case pixels from files" "$golden" 0.0118 pixel_values -- --ckpt "$ckpt" --images "$dir/$case"_*.png
  done
done

for dir in "$set_dir"/lora/*/; do
  name=$(basename "$dir")
  base=$set_dir/$("$python" -c 'import json,sys; print(json.load(open(sys.argv[1]))["base"])' "$dir/golden.json")
  check "lora $name" "$dir/golden.safetensors" 2e-4 "" -- --ckpt "$base" --ids "$dir/golden.safetensors" --suffix "" \
    --adapter "$dir" --merged
done

for dir in "$set_dir"/quant/*/; do
  check "quant $(basename "$dir")" "$dir/golden.safetensors" 2e-4 "" -- --ckpt "$dir" --ids "$dir/golden.safetensors" --all-keys
done

for kind in f32 q8_0; do
  golden=$set_dir/gguf/golden.safetensors
  check "gguf $kind" "$golden" 2e-4 "logits_$kind" -- --ckpt "$set_dir/gguf/d_text-$kind.gguf" --ids "$golden" --all-keys \
    --logits-name "logits_$kind"
done

for dir in "$set_dir"/training/*/; do
  variant=$(basename "$dir")
  ckpt=$set_dir/ckpt/$variant
  check "training $variant first step" "$dir/grads_step1.safetensors" 1e-4 "" -- --ckpt "$ckpt" \
    --ids "$dir/tokens.safetensors" --key tokens --grads
  python_check "training $variant relative RMS" grads "$dir/grads_step1.safetensors" "$dir/train.json" \
    "$work/training_${variant}_first_step.safetensors"
  golden=$set_dir/goldens/$variant/mm_2.safetensors
  out=$work/image_grads_$variant.safetensors
  "$puna" golden --ckpt "$ckpt" --ids "$golden" --pixels "$golden" --labels "$dir/image_grads.json" --grads --out "$out" \
    >"$work/log" 2>&1
  python_check "training $variant image gradients" image-grads "$dir/image_grads.json" "$out"
done

echo "$passed passed, $failed failed (candidates in $work)"
[ "$failed" -eq 0 ]
