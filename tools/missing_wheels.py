"""Prints, on one line, the pins of the given requirements file that this Python's packages do not satisfy.

A local version suffix (2.13.0+cpu, 2.13.0+cu130) satisfies the pin without it.
"""
import sys
from importlib import metadata

missing = []
for line in open(sys.argv[1], encoding="utf-8"):
    pin = line.split("#")[0].strip()
    if not pin:
        continue
    name, version = pin.split("==")
    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        installed = ""
    if version not in (installed, installed.split("+")[0]):
        missing.append(pin)
print(" ".join(missing))
