#!/usr/bin/env python
"""Writes requirements.lock, requirements-extras.lock and requirements-natten.lock: what is installed, by the digest of
each file, on all systems and versions of Python. Needs uv beside the Python that runs it; `make lock` brings one."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = "3.10"
BUILT_HERE = ("natten", "mamba")  # built against the installed torch, not locked here
CUDA_BUILD = "torch|triton$|nvidia-|cuda-"
DEVELOPMENT = "dev"  # in requirements.txt
HEAD = """\
# The set of requirements.txt with everything it needs, by the digest of each file, for Python 3.10 to 3.13 on all
# systems. `make` installs it; `make lock` writes it anew.
"""
HEAD_EXTRAS = """\
# What the extras of setup.py need beside requirements.lock, all of them in one set. `make extras` installs it; `make
# lock` writes it anew.
"""
HEAD_NATTEN = "# Optional, built against the installed torch. `make lock` writes it anew.\n"


def resolved(requirements: Path, *options: str) -> str:
    """The locked set of a file of requirements; it names no place from which packages come."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.is_file():
        sys.exit(f"lock_requirements: error: {uv}: no such program; `make lock` brings it")
    command = [str(uv), "pip", "compile", "--quiet", "--universal"]
    command += ["--python-version", OLDEST_PYTHON, "--generate-hashes", "--no-header", "--no-annotate", *options]
    return subprocess.run([*command, str(requirements)], check=True, stdout=subprocess.PIPE, text=True).stdout


def extras() -> list[str]:
    """Names of the extras of setup.py that come as they are."""
    text = (ROOT / "setup.py").read_text(encoding="utf-8").split("extras_require=", 1)[1]
    names = re.findall(r'^        "(\w+)": \[', text, re.MULTILINE)
    return [name for name in names if name not in (*BUILT_HERE, DEVELOPMENT)]


def resolved_extras(locked: str) -> str:
    """What the extras need beside the locked set, in versions that go with it."""
    pins = re.findall(r"^([\w.-]+)(==[^\\\n]+)", locked, re.MULTILINE)
    # Those with conditions may be lacking where an extra needs them; what belongs to a build of torch is there.
    everywhere = [name for name, version in pins if ";" not in version or re.match(CUDA_BUILD, name)]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("".join(f"{name}{version}\n" for name, version in pins), encoding="utf-8")
        options = ["--constraint", str(constraints)]
        options += [word for name in extras() for word in ("--extra", name)]
        options += [word for name in everywhere for word in ("--no-emit-package", name)]
        return resolved(ROOT / "setup.py", *options)


if __name__ == "__main__":
    argparse.ArgumentParser(prog="lock_requirements", description=__doc__).parse_args()
    locked = resolved(ROOT / "requirements.txt")
    (ROOT / "requirements.lock").write_text(HEAD + locked, encoding="utf-8")
    (ROOT / "requirements-extras.lock").write_text(HEAD_EXTRAS + resolved_extras(locked), encoding="utf-8")
    natten = re.search(r"natten==[\w.]+", (ROOT / "setup.py").read_text(encoding="utf-8"))[0]
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "natten.txt"
        alone.write_text(natten)
        text = HEAD_NATTEN + resolved(alone, "--no-deps")
    (ROOT / "requirements-natten.lock").write_text(text, encoding="utf-8")
