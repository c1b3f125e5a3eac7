"""The rules of the source tree that a compiler does not check. Run: python3 tests/rules/rules.py [ROOT]

Each rule is a function from a Tree to lines `file:line: what is wrong`; rules_test.py shows that each can fail.
"""
import re
import subprocess
import sys
from pathlib import Path

MAX_LINES = 500
# Files that may be longer, each with the reason that a reader would accept.
LONG_FILES = {}
CODE = (".cc", ".h", ".inc", ".inl", ".py", ".sh", ".cmake")
INCLUDE = re.compile(r'\s*#\s*include\s+(["<])([^">]+)[">]')
ENVIRONMENT = re.compile(r"\b(getenv|secure_getenv|setenv|putenv|unsetenv|environ)\b")
TORCH = ("ATen/", "torch/", "c10/")


class Tree:
    """The tracked files of a checkout (all files where there is no git) and its folder table."""

    def __init__(self, root):
        self.root = Path(root)
        listed = subprocess.run(["git", "-C", str(root), "ls-files", "-z"], capture_output=True, text=True)
        if listed.returncode == 0 and listed.stdout:
            names = [n for n in listed.stdout.split("\0") if n and (self.root / n).is_file()]
        else:
            names = [str(p.relative_to(self.root)) for p in self.root.rglob("*")
                     if p.is_file() and not {".git", ".venv", "build"} & set(p.relative_to(self.root).parts)]
        self.files = sorted(names)
        self.allowed, self.torch = {}, set()
        for line in self.text("cmake/folders.txt").splitlines():
            match = re.match(r"([a-z]+)( torch)?:(.*)$", line)
            if match:
                self.allowed[match[1]] = match[3].split()
                if match[2]:
                    self.torch.add(match[1])

    def text(self, name):
        return (self.root / name).read_text(encoding="utf-8", errors="surrogateescape")

    def sources(self):
        return [n for n in self.files if n.startswith("src/") and n.endswith((".cc", ".h", ".inc", ".inl"))]

    def code(self):
        return [n for n in self.files if n.endswith(CODE) or n in ("puna", ".ci/run", "CMakeLists.txt")]


def folder_table(tree):
    """A folder is listed after the folders that it may include, so that there is no circle."""
    seen = set()
    for folder, deps in tree.allowed.items():
        for dep in deps:
            if dep not in seen:
                yield f"cmake/folders.txt: '{folder}' names '{dep}', which is not on a line above it"
            elif dep in tree.torch and folder not in tree.torch:
                yield f"cmake/folders.txt: '{folder}' is without torch, but '{dep}' needs it"
        seen.add(folder)


def includes(tree):
    """A folder includes itself and the folders its line names; only folders marked so include LibTorch."""
    for name in tree.sources():
        folder = name.split("/")[1]
        if folder not in tree.allowed:
            yield f"{name}:1: folder '{folder}' has no line in cmake/folders.txt"
            continue
        for number, line in enumerate(tree.text(name).splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            quote, path = match.groups()
            target = path.split("/")[0]
            if quote == "<":
                if path.startswith(TORCH) and folder not in tree.torch:
                    yield f"{name}:{number}: <{path}> in '{folder}', which builds without LibTorch"
            elif "/" not in path or target not in tree.allowed:
                yield f'{name}:{number}: "{path}" is not written as "<folder>/<file>"'
            elif target != folder and target not in tree.allowed[folder]:
                yield f"{name}:{number}: '{folder}' may not include '{target}' ({path})"


def lengths(tree):
    for name in tree.code():
        lines = len(tree.text(name).splitlines())
        if lines > MAX_LINES and name not in LONG_FILES:
            yield f"{name}: {lines} lines, {MAX_LINES} at most; split it, or give the reason in tests/rules/rules.py"
    for name in LONG_FILES:
        if name not in tree.files or len(tree.text(name).splitlines()) <= MAX_LINES:
            yield f"tests/rules/rules.py: '{name}' needs no reason any more"


def ascii_only(tree):
    for name in tree.code():
        for number, line in enumerate(tree.text(name).split("\n"), 1):
            if not line.isascii():
                yield f"{name}:{number}: a character that is not ASCII; write it as an escape"


def environment(tree):
    """Environment variables are read in src/base/env.cc alone."""
    for name in tree.sources():
        if name == "src/base/env.cc":
            continue
        for number, line in enumerate(tree.text(name).splitlines(), 1):
            found = ENVIRONMENT.search(line.split("//")[0])
            if found:
                yield f"{name}:{number}: {found[0]} outside src/base/env.cc"


RULES = (folder_table, includes, lengths, ascii_only, environment)


def main(root):
    tree = Tree(root)
    wrong = [line for rule in RULES for line in rule(tree)]
    print(*wrong, sep="\n")
    print(f"{len(tree.files)} files, {len(RULES)} rules, {len(wrong)} findings")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent.parent))
