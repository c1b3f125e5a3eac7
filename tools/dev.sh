# Sourced by ./puna: the commands for work on Puna itself.

dev_help() {
  cat <<END
Commands for work on Puna itself (docs/DEVELOPMENT.md says more):
  ./puna test [--filter REGEX] [ctest options]   build and run all tests, or those whose names match
  ./puna test --preset NAME                      the same for debug, asan, asan-torch, tsan or tsan-torch
  ./puna format [--fix]                          check the layout of all tracked C++ files, or mend it
  ./puna lint [--all | FILE.cc ...]              clang-tidy: the folders without LibTorch, all folders, or these files
  ./puna fuzz [SECONDS [NAME ...]]               run each fuzz target (or these) for SECONDS, 60 if not said
  ./puna bench [NAME [arguments]]                build the benchmarks of single parts and list them, or run one
CMake presets: release, tests, debug, asan, asan-torch, tsan, tsan-torch, fuzz (cmake --list-presets).
END
}

# tests_alone PRESET
tests_alone() {
  install_packages program tests format
  case $1 in
  asan | tsan) ;;
  *)
    find_torch
    install_wheels "$root/tests/requirements.txt"
    install_wheels "$root/tests/requirements-no-deps.txt" --no-deps
    ;;
  esac
  configure "$1"
  case $1 in
  tests) build_release tests ;;
  *) build_preset "$1" ;;
  esac
}

dev_test() {
  preset=tests
  filter=
  while :; do
    case ${1-} in
    --filter | --preset)
      [ $# -ge 2 ] || fail "$1 needs a value; see ./puna help-dev"
      option=$1=$2
      shift 2
      set -- "$option" "$@"
      ;;
    --filter=*) filter=${1#*=} && shift ;;
    --preset=*) preset=${1#*=} && shift ;;
    *) break ;;
    esac
  done
  alone tests_alone "$preset"
  cd "$root" || exit 1
  # Tests run side by side: a thread that spins would hold up another test.
  exec env GOMP_SPINCOUNT=0 ctest --preset "$preset" --no-label-summary ${filter:+-R "$filter"} "$@" </dev/null
}

# The tracked C++ files, or all in a copy without git; paths are relative to the root.
cxx_files() {
  (
    cd "$root" || exit 1
    git ls-files -- '*.h' '*.cc' 2>/dev/null || find src tests bench -name '*.h' -o -name '*.cc'
  ) | sort
}

dev_format() {
  case ${1-} in
  '') set -- --dry-run --Werror ;;
  --fix) set -- -i ;;
  *) fail "format takes --fix or nothing, not '$1'" ;;
  esac
  alone install_packages format
  cd "$root" || exit 1
  cxx_files | xargs -d '\n' clang-format "$@" || fail "the layout differs; ./puna format --fix mends it"
}

lint_alone() {
  install_packages program tests lint
  if [ "$1" = debug ]; then find_torch; fi
  configure "$1"
}

dev_lint() {
  preset=asan
  case ${1-} in
  --all)
    preset=debug
    set --
    ;;
  '') ;;
  -*) fail "lint takes --all or files, not '$1'" ;;
  esac
  alone lint_alone "$preset"
  "$root/tools/lint.sh" "$root/build/$preset" "$@"
}

fuzz_alone() {
  install_packages program fuzz
  configure fuzz
  build_preset fuzz
}

dev_fuzz() {
  seconds=${1:-60}
  case $seconds in
  *[!0-9]*) fail "fuzz takes a number of seconds, then names; not '$seconds'" ;;
  esac
  [ $# = 0 ] || shift
  alone fuzz_alone
  "$root/tools/fuzz.sh" "$root/build/fuzz" "$seconds" "$@"
}

bench_alone() {
  install_packages program bench
  find_torch
  install_wheels "$root/tests/requirements.txt"
  install_wheels "$root/tests/requirements-no-deps.txt" --no-deps
  configure release
  grep -q "^PUNA_BENCH:BOOL=ON" "$root/build/release/CMakeCache.txt" ||
    (cd "$root" && cmake --preset release --log-level=WARNING -DPUNA_BENCH=ON)
  build_release tests
}

dev_bench() {
  alone bench_alone
  if [ $# = 0 ]; then
    say "benchmarks:"
    {
      find "$root/build/release/bench" -maxdepth 1 -type f -perm -u+x -printf '  %f\n'
      find "$root/bench" -maxdepth 1 -name '*.py' -printf '  %f\n' | sed 's/\.py$//'
    } | sort
    return
  fi
  script=$root/bench/$1.py
  if [ -f "$script" ]; then
    shift
    exec env PUNA="$root/build/release/puna" "$root/.venv/bin/python" "$script" "$@"
  fi
  benchmark=$root/build/release/bench/$1
  [ -x "$benchmark" ] || fail "no benchmark '$1'; ./puna bench lists them"
  shift
  exec "$benchmark" "$@"
}
