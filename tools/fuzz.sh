#!/bin/sh
# tools/fuzz.sh BUILD SECONDS [NAME ...]: runs the fuzz targets of a build, one at a time on each core, and sums up.
# New inputs gather in BUILD/corpus/<name>; a found case is left in BUILD/found, to be mended and kept in tests/fuzz/corpus.
set -eu
root=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
build=$1
seconds=$2
shift 2
if [ $# = 0 ]; then
  for source in "$root"/tests/fuzz/fuzz_*.cc; do
    name=${source##*/fuzz_}
    set -- "$@" "${name%.cc}"
  done
fi
mkdir -p "$build/found"

one() {
  name=$1
  target=$build/tests/fuzz/fuzz_$name
  if [ ! -x "$target" ]; then
    echo "puna: no fuzz target '$name'" >&2
    return 1
  fi
  mkdir -p "$build/corpus/$name" "$root/tests/fuzz/corpus/$name"
  if "$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -malloc_limit_mb=1024 -print_final_stats=1 \
    -artifact_prefix="$build/found/$name-" "$build/corpus/$name" "$root/tests/fuzz/corpus/$name" \
    >"$build/fuzz_$name.log" 2>&1; then
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/fuzz_$name.log")
    echo "fuzz $name: $seconds s, $runs runs, nothing found"
  else
    grep -E 'ERROR|SUMMARY|runtime error|Test unit written' "$build/fuzz_$name.log" || tail -n 20 "$build/fuzz_$name.log"
    echo "fuzz $name: FOUND a case; its whole report is $build/fuzz_$name.log"
    return 1
  fi
}

if [ "${PUNA_FUZZ_ONE-}" ]; then
  one "$1"
else
  printf '%s\n' "$@" | PUNA_FUZZ_ONE=1 xargs -P "$(nproc)" -I '{}' "$0" "$build" "$seconds" '{}'
fi
