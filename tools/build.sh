# Sourced by ./puna: finds what is missing, installs it, configures and builds.
# Everything here talks on stderr and reads no standard input, which belong to the command that is run afterwards.

say() { printf 'puna: %s\n' "$*" >&2; }
fail() {
  say "$@"
  exit 1
}

# The packages of the given kinds (lines of cmake/debian-packages.txt), one per line.
packages_of() {
  for kind in "$@"; do
    sed -n "s/^$kind: *//p" "$root/cmake/debian-packages.txt"
  done | tr -s ' ' '\n'
}

# Debian packages of the given kinds that are not installed, on one line; nothing where there is no dpkg.
missing_packages() {
  command -v dpkg-query >/dev/null 2>&1 || return 0
  wanted=$(packages_of "$@")
  # shellcheck disable=SC2016,SC2086
  installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' $wanted 2>/dev/null | sed -n 's/ installed$//p')
  missing=
  for package in $wanted; do
    printf '%s\n' "$installed" | grep -qxF "$package" || missing="$missing $package"
  done
  printf '%s\n' "${missing# }"
}

# Sets as_root to what runs a command as root ('' or sudo); false when this user may not.
find_root() {
  as_root=
  [ "$(id -u)" != 0 ] || return 0
  command -v sudo >/dev/null 2>&1 || return 1
  as_root=sudo
  sudo -n true 2>/dev/null || [ -t 2 ]
}

install_packages() {
  packages=$(missing_packages "$@")
  [ -n "$packages" ] || return 0
  install="apt-get install -y --no-install-recommends $packages"
  [ -z "$offline" ] || fail "offline, and these Debian packages are missing: $packages
puna: install them with: sudo apt-get update && sudo $install"
  find_root || fail "these Debian packages are missing, and this user may not install them: $packages
puna: as root, run: apt-get update && $install"
  say "installing Debian packages: $packages"
  # The lock on the build is not for services that a package may start.
  {
    $as_root apt-get -q update || say "apt-get update failed; going on with the package lists that are there"
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 \
      install -y --no-install-recommends $packages
  } 9>&- || fail "apt-get could not install them; as root, run: apt-get update && $install"
}

# The pins of a requirements file that .venv does not satisfy, on one line.
missing_wheels() {
  if [ -x "$root/.venv/bin/python3" ]; then
    "$root/.venv/bin/python3" "$root/tools/missing_wheels.py" "$1"
  else
    sed -n 's/ *#.*//; /==/p' "$1" | tr '\n' ' ' | sed 's/ $//'
  fi
}

# install_wheels FILE [pip options]: brings .venv up to the pins in FILE.
install_wheels() {
  file=$1
  shift
  wheels=$(missing_wheels "$file")
  [ -n "$wheels" ] || return 0
  [ -z "$offline" ] || fail "offline, and .venv lacks: $wheels
puna: with network, ./puna installs them; a system LibTorch is used with Torch_DIR=<libtorch>/share/cmake/Torch"
  say "installing into $root/.venv: $wheels"
  "$root/.venv/bin/python3" -m pip --version >/dev/null 2>&1 || python3 -m venv "$root/.venv" ||
    fail "python3 -m venv $root/.venv failed"
  "$root/.venv/bin/python3" -m pip install --disable-pip-version-check "$@" -r "$file" ||
    fail "pip could not install them; running ./puna again tries again"
}

# Sets torch to the folder of LibTorch: Torch_DIR's, else the one built with before, else the wheel in .venv.
find_torch() {
  torch=$(torch_asked_for)
  if [ -n "$torch" ]; then
    [ -f "$torch/lib/libtorch_cpu.so" ] || fail "Torch_DIR=$Torch_DIR: there is no $torch/lib/libtorch_cpu.so"
    return
  fi
  if [ -f "$root/build/release/.puna-configured" ]; then
    { IFS= read -r torch && IFS= read -r torch; } <"$root/build/release/.puna-configured" || torch=
    case $torch in
    "$root"/.venv/*) ;;
    *) [ ! -f "$torch/lib/libtorch_cpu.so" ] || return 0 ;;
    esac
  fi
  install_wheels "$root/requirements.txt"
  torch=
  for folder in "$root"/.venv/lib/python3*/site-packages/torch; do
    [ ! -f "$folder/lib/libtorch_cpu.so" ] || torch=$folder
  done
  [ -n "$torch" ] || fail "the torch wheel in $root/.venv has no lib/libtorch_cpu.so; remove .venv and run ./puna again"
}

# configure PRESET [cmake arguments]: only when something that it depends on has changed.
configure() {
  preset=$1
  folder=$root/build/$preset
  [ "$preset" != tests ] || folder=$root/build/release
  shift
  configured=$folder/.puna-configured
  now=$(printf '%s\n%s\n' "$root" "${torch-}")
  if [ "$(cat "$configured" 2>/dev/null)" = "$now" ] && [ ! "$root/CMakePresets.json" -nt "$configured" ]; then
    [ "$preset" = tests ] || return 0
    ! grep -q '^PUNA_TESTS:BOOL=ON' "$folder/CMakeCache.txt" || return 0
  fi
  fresh=
  if [ -f "$folder/CMakeCache.txt" ] && ! grep -qxF "CMAKE_HOME_DIRECTORY:INTERNAL=$root" "$folder/CMakeCache.txt"; then
    fresh=--fresh
  fi
  mkdir -p "$folder"
  rm -f "$configured"
  say "configuring build/${folder##*/}"
  # shellcheck disable=SC2086
  (cd "$root" && cmake --preset "$preset" $fresh ${torch:+"-DPUNA_TORCH_ROOT=$torch"} "$@" >"$folder/configure.log") ||
    fail "cmake could not configure build/${folder##*/}; the reason is above"
  printf '%s\n' "$now" >"$configured"
}

# One compiler per core, fewer where there is under 1.5 GiB of memory for each.
num_jobs() {
  cores=$(nproc)
  fits=$(sed -n 's/^MemAvailable: *\([0-9]*\) kB$/\1/p' /proc/meminfo)
  fits=$((${fits:-3145728} / 1572864))
  [ "$fits" -ge 1 ] || fits=1
  [ "$fits" -le "$cores" ] || fits=$cores
  echo "$fits"
}

# build_preset PRESET [targets]: the preset's own targets when none are given.
build_preset() {
  preset=$1
  shift
  # Objects are found again from another build folder or another clone.
  (cd "$root" && CCACHE_BASEDIR="$root" CCACHE_NOHASHDIR=1 NINJA_STATUS='[%f/%t, %es] ' \
    cmake --build --preset "$preset" --parallel "$(num_jobs)" ${1:+--target "$@"}) ||
    fail "the build stopped; the reason is above. Running the same command again goes on from here"
}

# Runs the given function alone: a second ./puna waits here until the first is done.
alone() {
  mkdir -p "$root/build" || fail "cannot write to $root"
  (
    flock -n 9 || {
      say "another ./puna is building; waiting for it"
      flock 9
    }
    "$@"
  ) 9>"$root/build/.lock" </dev/null >&2
}

# build_release PRESET: builds in build/release; the stamp is as old as the start, so that a file changed meanwhile is seen.
build_release() {
  printf '%s\n%s\n' "$root" "$torch" >"$stamp.new"
  build_preset "$1"
  mv "$stamp.new" "$stamp"
}

build_program_alone() {
  ! program_is_fresh || return 0
  install_packages program
  find_torch
  configure release
  build_release release
}

build_program() { alone build_program_alone; }
