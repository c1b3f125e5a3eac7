#!/bin/sh
# tools/measure_build.sh: seconds that builds take here, without ccache: the program cold, with all tests cold, and after
# a change of one file. Works in a copy under build/measure that it removes afterwards; LibTorch is the checkout's own.
set -eu
root=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
copy=$root/build/measure/copy
rm -rf "$root/build/measure"
mkdir -p "$copy"
trap 'rm -rf "$root/build/measure"' EXIT
(cd "$root" && git ls-files -z | tar -c --null -T - -f -) | tar -x -C "$copy"
[ -z "${Torch_DIR-}" ] && [ -d "$root/.venv" ] && ln -s "$root/.venv" "$copy/.venv"
export CCACHE_DISABLE=1

timed() {
  what=$1
  shift
  start=$(date +%s)
  (cd "$copy" && "$@" >"$root/build/measure/log" 2>&1) || {
    tail -n 30 "$root/build/measure/log" >&2
    exit 1
  }
  echo "$what: $(($(date +%s) - start)) s"
}

nproc | sed 's/$/ cores/'
timed 'configure' cmake --preset release
timed 'cold, the program' cmake --build --preset release --parallel "$(nproc)"
(cd "$copy" && cmake --preset tests >/dev/null)
timed 'tests on top of it' cmake --build --preset tests --parallel "$(nproc)"
touch "$copy/src/io/gguf.cc"
timed 'one file of src/io, the program' cmake --build --preset release --parallel "$(nproc)"
touch "$copy/src/model/model.cc"
timed 'one file of src/model, the program' cmake --build --preset release --parallel "$(nproc)"
touch "$copy/src/model/model.cc"
timed 'one file of src/model, with all tests' cmake --build --preset tests --parallel "$(nproc)"
