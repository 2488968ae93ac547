#!/usr/bin/env python
"""Writes requirements.lock and requirements-natten.lock: what is installed, by the digest of each file, on all systems
and versions of Python. Needs uv beside the Python that runs it; `make lock` brings one."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON = "3.10"
HEAD = """\
# The set of requirements.txt with everything it needs, by the digest of each file, for Python 3.10 to 3.13 on all
# systems. `make` installs it; `make lock` writes it anew.
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


if __name__ == "__main__":
    argparse.ArgumentParser(prog="lock_requirements", description=__doc__).parse_args()
    (ROOT / "requirements.lock").write_text(HEAD + resolved(ROOT / "requirements.txt"), encoding="utf-8")
    natten = re.search(r"natten==[\w.]+", (ROOT / "setup.py").read_text(encoding="utf-8"))[0]
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "natten.txt"
        alone.write_text(natten)
        text = HEAD_NATTEN + resolved(alone, "--no-deps")
    (ROOT / "requirements-natten.lock").write_text(text, encoding="utf-8")
