#!/bin/sh
# tools/lint.sh BUILD [FILE.cc ...]: clang-tidy with .clang-tidy over these files, or all of BUILD's compile commands in src/.
set -eu
root=$(dirname -- "$(dirname -- "$(readlink -f -- "$0")")")
build=$1
shift
if [ $# = 0 ]; then
  sed -n "s|^ *\"file\": \"\($root/src/.*\.cc\)\".*|\1|p" "$build/compile_commands.json"
else
  readlink -f -- "$@"
fi | sort -u | xargs -d '\n' -P "$(nproc)" -n 1 clang-tidy -p "$build" --quiet 2>"$build/lint.log" || {
  grep -v 'warnings* generated' "$build/lint.log" >&2 || true
  echo "puna: clang-tidy found something" >&2
  exit 1
}
