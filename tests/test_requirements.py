"""The locked set is that of requirements.txt, each file by its digest, from wherever a machine gets its packages."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", re.MULTILINE)
HERE = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)(?: *; *([^\\\n]+))?", re.MULTILINE)


def name_of(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def pins(file: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for package, version in PIN.findall((ROOT / file).read_text(encoding="utf-8")):
        found.setdefault(name_of(package), set()).add(version)
    return found


def pins_here(*files: str) -> dict[str, set[str]]:
    """Those whose conditions hold on this system and Python."""
    found: dict[str, set[str]] = {}
    for file in files:
        for package, version, condition in HERE.findall((ROOT / file).read_text(encoding="utf-8")):
            if not condition or Marker(condition.strip()).evaluate():
                found.setdefault(name_of(package), set()).add(version)
    return found


def test_every_requirement_is_locked_in_its_version():
    wanted, locked = pins("requirements.txt"), pins("requirements.lock")
    assert len(wanted) > 15
    assert {name: locked.get(name) for name in wanted} == wanted, "run `make lock`"


def test_natten_is_locked_in_the_version_of_the_extra():
    assert f"natten=={pins('requirements-natten.lock')['natten'].pop()}" in (ROOT / "setup.py").read_text()


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-extras.lock", "requirements-natten.lock"])
def test_every_package_has_digests_and_no_place(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    entries = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    digest = r"(\s+--hash=sha256:[0-9a-f]{64})+\s*"
    for entry in entries:
        assert re.fullmatch(rf"{PIN.pattern[1:]}\s*(;[^#]*?)?{digest}", entry), entry[:80]
    assert not re.search(r"://|--(extra-)?index-url|--find-links|--trusted-host", text)


def test_make_installs_what_is_locked():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--require-hashes --no-deps -r requirements.lock" in makefile
    assert "-r requirements.txt" not in makefile


def test_the_extras_are_locked_and_change_nothing():
    """They are installed over the locked set."""
    locked, extras = pins("requirements.lock"), pins("requirements-extras.lock")
    assert [name for name in set(locked) & set(extras) if not extras[name] <= locked[name]] == []
    text = (ROOT / "setup.py").read_text(encoding="utf-8").split("extras_require=", 1)[1]
    lists = dict(re.findall(r'^        "(\w+)": \[(.*?)\]', text, re.MULTILINE | re.DOTALL))
    named = {name: re.findall(r'"([\w.-]+)', lists[name]) for name in lists if name not in ("natten", "mamba", "dev")}
    assert len(named) > 5
    assert not [package for packages in named.values() for package in packages if name_of(package) not in extras]


@pytest.mark.parametrize("files", [["requirements.lock"], ["requirements.lock", "requirements-extras.lock"]])
def test_the_locked_set_is_whole(files):
    """It is installed without looking for what its packages need: all of that is in it, in a version that they take."""
    locked = pins_here(*files)
    looked_at = 0
    for name in locked:
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another system or Python, or not installed
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate({"extra": ""}):
                looked_at += 1
                versions = locked.get(name_of(need.name), set())
                assert any(need.specifier.contains(version) for version in versions), f"{name} needs {need}: {versions}"
    assert looked_at > 50


def test_another_build_of_torch_leaves_out_what_belongs_to_this_one(tmp_path):
    """``make TORCH=cpu``: torch, its libraries and its compiler come from that build, all else from the locked set."""
    steps = subprocess.run(
        ["make", "--dry-run", "--always-make", "TORCH=cpu", "setup"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    line = next(line for line in steps.splitlines() if line.startswith("awk"))
    filtered = tmp_path / "requirements.lock"
    subprocess.run(line.split(">")[0] + f"> {filtered}", shell=True, cwd=ROOT, check=True)
    kept, locked = PIN.findall(filtered.read_text()), PIN.findall((ROOT / "requirements.lock").read_text())
    left = {name for name, _ in set(locked) - set(kept)}
    assert {"torch", "torchvision", "triton", "nvidia-cublas"} <= left
    assert all(re.match(r"torch|triton|nvidia-|cuda-", name) for name in left) and len(kept) > 60
    assert "--torch-backend cpu $(grep -E '^torch(vision)?==' requirements.txt)" in steps
    assert filtered.read_text().count("--hash=") > len(kept)
