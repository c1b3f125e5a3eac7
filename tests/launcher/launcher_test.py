"""./puna with every tool that it calls replaced by a script that writes down how it was called."""
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("puna", "tools", "cmake", "CMakePresets.json", "CMakeLists.txt", "requirements.txt", "tests/requirements.txt",
          "tests/requirements-no-deps.txt")

TOOLS = {
    "cmake": """
        case $1 in
        --build)
          [ ! -e "$FAKE/break" ] || { echo "error: broken"; exit 1; }
          sleep "${FAKE_SECONDS:-0}"
          cp "$FAKE/program" build/release/puna
          ;;
        --preset) mkdir -p build/release && echo "CMAKE_HOME_DIRECTORY:INTERNAL=$PWD" >build/release/CMakeCache.txt ;;
        esac""",
    "dpkg-query": """shift 2; for p; do grep -qxF "$p" "$FAKE/missing" || echo "$p installed"; done""",
    "apt-get": """case "$*" in *install*) : >"$FAKE/missing" ;; esac""",
    "id": """echo "${FAKE_USER:-0}" """,
    "sudo": """[ -z "$FAKE_SUDO" ] && exit 1; [ "$1" = -n ] || "$@" """,
    "python3": """
        [ "$2" != venv ] || { mkdir -p "$3/bin" && cp "$0" "$3/bin/python3"; }
        case "$*" in *"pip install"*) site="$(dirname "$0")/../lib/python3.11/site-packages/torch/lib"
          mkdir -p "$site" && touch "$site/libtorch_cpu.so" ;; esac
        case "$*" in *missing_wheels*) [ -d "$(dirname "$0")/../lib" ] || echo torch==9 ;; esac""",
}
PROGRAM = '#!/bin/sh\nprintf "[%s]" "$PWD" "$@"\nif [ "$1" = cat ]; then cat; fi\n'


class LauncherTest(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="puna launcher "))
        self.addCleanup(shutil.rmtree, self.folder)
        self.root = self.folder / "a clone"
        self.fake = self.folder / "fake"
        self.fake.mkdir()
        for name in COPIED:
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if (ROOT / name).is_dir() else shutil.copy2)(ROOT / name, target)
        self.source = self.root / "src/base/a.cc"
        self.source.parent.mkdir(parents=True)
        self.source.touch()
        (self.fake / "missing").touch()
        (self.fake / "program").write_text(PROGRAM)
        (self.fake / "program").chmod(0o755)
        for name, body in TOOLS.items():
            tool = self.fake / "bin" / name
            tool.parent.mkdir(exist_ok=True)
            tool.write_text(f'#!/bin/sh\necho "{name} $*" >>"$FAKE/log"\n{body}\n')
            tool.chmod(0o755)

    def environment(self, more):
        env = {k: v for k, v in os.environ.items() if k != "Torch_DIR"}
        return {**env, "PATH": f"{self.fake}/bin:/usr/bin:/bin", "FAKE": str(self.fake), "FAKE_SUDO": "", **more}

    def puna(self, *arguments, cwd=None, stdin="", script=None, **env):
        return subprocess.run([script or self.root / "puna", *arguments], cwd=cwd or self.folder, input=stdin, text=True,
                              capture_output=True, env=self.environment(env), timeout=60)

    def log(self):
        log = self.fake / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines

    def built(self):
        done = self.puna("x")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.log()

    def lack(self, *packages):
        (self.fake / "missing").write_text("\n".join(packages) + "\n")

    def test_first_run_installs_the_wheel_configures_builds_and_runs(self):
        done = self.puna("x")
        self.assertEqual((done.returncode, done.stdout), (0, f"[{self.folder}][x]"), done.stderr)
        self.assertIn("torch==", done.stderr)
        kinds = [" ".join(line.split()[:2]) for line in self.log() if line.startswith("cmake")]
        self.assertEqual(kinds, ["cmake --preset", "cmake --build"])

    def test_arguments_directory_and_standard_input_reach_the_program_as_they_are(self):
        arguments = ["cat", "", "a b", "'\"$HOME`id`\\", "*", "-n", "two\nlines", "--offline"]
        for _ in range(2):  # with a build before, and without
            done = self.puna(*arguments, cwd="/", stdin="in\nput")
            self.assertEqual(done.stdout, "".join(f"[{a}]" for a in ["/", *arguments]) + "in\nput")

    def test_through_a_symbolic_link(self):
        link = self.folder / "link"
        link.symlink_to(self.root / "puna")
        self.assertEqual(self.puna("x", script=link).stdout, f"[{self.folder}][x]")

    def test_nothing_to_do_runs_no_tool_and_starts_at_once(self):
        self.built()
        start = time.monotonic()
        self.puna("x")
        self.assertLess(time.monotonic() - start, 0.3)
        self.assertEqual(self.log(), [])

    def test_a_changed_new_or_removed_source_is_built(self):
        self.built()
        for change in (self.source.touch, (self.source.parent / "b.cc").touch, self.source.unlink):
            time.sleep(0.02)
            change()
            self.puna("x")
            self.assertTrue([line for line in self.log() if line.startswith("cmake --build")], change)

    def test_a_source_changed_during_the_build_is_built_next_time(self):
        build = subprocess.Popen([self.root / "puna", "x"], env=self.environment({"FAKE_SECONDS": "1"}),
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        log, deadline = self.fake / "log", time.monotonic() + 60
        while not (log.exists() and "cmake --build" in log.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.02)
        self.source.touch()
        build.wait()
        self.log()
        self.puna("x")
        self.assertTrue([line for line in self.log() if line.startswith("cmake --build")])

    def test_packages_are_named_before_they_are_installed_with_one_update(self):
        self.lack("ccache", "cmake")
        done = self.puna("x")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("installing Debian packages: cmake ccache\n", done.stderr)
        calls = [line for line in self.log() if line.startswith("apt-get")]
        self.assertEqual(len([c for c in calls if "update" in c]), 1)
        self.assertTrue(calls[-1].endswith("install -y --no-install-recommends cmake ccache"), calls)

    def test_a_sudoer_installs_through_sudo(self):
        self.lack("cmake")
        done = self.puna("x", FAKE_USER="1000", FAKE_SUDO="yes")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue([line for line in self.log() if line.startswith("sudo apt-get -q update")])

    def test_without_permission_the_exact_command_is_printed(self):
        self.lack("cmake")
        done = self.puna("x", FAKE_USER="1000")
        self.assertEqual(done.returncode, 1)
        self.assertIn("apt-get update && apt-get install -y --no-install-recommends cmake\n", done.stderr)
        self.assertFalse([line for line in self.log() if line.startswith("apt-get")])

    def test_offline_names_what_is_missing_and_calls_no_network(self):
        self.lack("cmake")
        done = self.puna("--offline", "x")
        self.assertEqual(done.returncode, 1)
        self.assertIn("cmake", done.stderr)
        self.lack("")
        done = self.puna("--offline", "x")
        self.assertEqual(done.returncode, 1)
        self.assertIn("torch==", done.stderr)
        self.assertFalse([line for line in self.log() if line.startswith(("apt-get", "python3 -m"))])

    def test_offline_builds_and_runs_when_all_is_there(self):
        self.built()
        self.source.touch()
        self.assertEqual(self.puna("--offline", "x").stdout, f"[{self.folder}][x]")

    def test_a_system_libtorch_is_used_and_kept(self):
        system = self.folder / "system torch"
        for folder in ("lib", "share/cmake/Torch"):
            (system / folder).mkdir(parents=True)
        (system / "lib/libtorch_cpu.so").touch()
        self.assertEqual(self.puna("x", Torch_DIR=str(system / "share/cmake/Torch")).returncode, 0)
        log = self.log()
        self.assertTrue([line for line in log if f"-DPUNA_TORCH_ROOT={system}" in line], log)
        self.assertFalse((self.root / ".venv").exists())
        self.source.touch()
        self.assertEqual(self.puna("x").returncode, 0)
        self.assertFalse((self.root / ".venv").exists())

    def test_a_wrong_torch_dir_is_said(self):
        done = self.puna("x", Torch_DIR="/nowhere/share/cmake/Torch")
        self.assertEqual(done.returncode, 1)
        self.assertIn("Torch_DIR=/nowhere/share/cmake/Torch", done.stderr)

    def test_two_at_once_build_once(self):
        both = [subprocess.Popen([self.root / "puna", "x"], env=self.environment({"FAKE_SECONDS": "1"}), text=True,
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=self.folder) for _ in range(2)]
        self.assertEqual([b.communicate()[0] for b in both], [f"[{self.folder}][x]"] * 2)
        self.assertEqual(len([line for line in self.log() if line.startswith("cmake --build")]), 1)

    def test_a_failed_build_runs_nothing_and_the_next_goes_on(self):
        self.built()
        self.source.touch()
        (self.fake / "break").touch()
        done = self.puna("x")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("error: broken", done.stderr)
        (self.fake / "break").unlink()
        self.assertEqual(self.puna("x").stdout, f"[{self.folder}][x]")

    def test_an_interrupted_build_goes_on_next_time(self):
        build = subprocess.Popen([self.root / "puna", "x"], env=self.environment({"FAKE_SECONDS": "30"}),
                                 start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.7)
        os.killpg(build.pid, signal.SIGINT)
        self.assertNotEqual(build.wait(timeout=10), 0)
        self.assertEqual(self.puna("x").stdout, f"[{self.folder}][x]")

    def test_help_explains_before_the_first_build_and_installs_nothing(self):
        for arguments in ((), ("--help",)):
            done = self.puna(*arguments)
            self.assertEqual(done.returncode, 0)
            self.assertIn("not built yet", done.stdout)
        self.assertEqual(self.log(), [])


if __name__ == "__main__":
    unittest.main()
