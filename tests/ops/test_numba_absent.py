"""numba is optional: absent, broken or without a place for its cache, plain PyTorch serves and says why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

numba = pytest.importorskip("numba")
ATTEND = """
    import sys
    import torch
    from mdg.ops import neighborhood_attention
    from mdg.ops.dispatch import OPERATORS
    from mdg.ops.cpu_kernels import why_not_numba

    q = torch.ones(1, 9, 10, 1, 4)
    torch.testing.assert_close(neighborhood_attention(q, q, q, kernel_size=3), q)  # weights sum to one
    print(why_not_numba())
"""


def say(code: str, folder: Path, **environment: str) -> str:
    """What a program prints that finds ``mdg`` in ``folder``."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", **environment},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow  # compiles kernels anew
def test_no_place_for_a_cache(tmp_path, repository):
    """A file lies where the folder of the cache would be made, which stops the superuser too."""
    shutil.copytree(repository / "mdg", tmp_path / "mdg", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "mdg" / "ops" / "__pycache__").write_text("")
    nowhere = {"HOME": "/proc/nonexistent", "XDG_CACHE_HOME": "/proc/nonexistent", "NUMBA_CACHE_DIR": "/proc/x"}
    reason = say(ATTEND, tmp_path, **nowhere)
    assert "numba can write its cache nowhere" in reason and "(set NUMBA_CACHE_DIR)" in reason
    assert say(ATTEND, tmp_path, **nowhere | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")}) == "None"


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param("import llvmlite_of_old", marks=pytest.mark.slow),  # imports PyTorch, as the other one
        "raise SystemError('built for another numpy\\nand more')",
    ],
)
def test_numba_that_cannot_be_imported(tmp_path, repository, broken):
    (tmp_path / "numba").mkdir()
    (tmp_path / "numba" / "__init__.py").write_text(broken)
    os.symlink(repository / "mdg", tmp_path / "mdg")
    reason = say(ATTEND, tmp_path)
    assert reason.startswith("numba cannot be used here (") and "\n" not in reason


def test_numba_that_is_absent(tmp_path, repository):
    os.symlink(repository / "mdg", tmp_path / "mdg")
    assert (
        say("import sys; sys.modules['numba'] = None\n" + textwrap.dedent(ATTEND), tmp_path) == "numba is not installed"
    )


@pytest.fixture
def double():
    from mdg.ops.numba_math import jit

    @jit
    def double(x):
        for i in range(x.size):
            x[i] *= 2

    return double


def compiled(double) -> np.ndarray:
    numbers = np.arange(3.0)
    double(numbers)
    return numbers


def test_a_cache_that_cannot_be_written_is_no_error(double, monkeypatch):
    from numba.core import caching

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "save", full)
    monkeypatch.setattr(caching.IndexDataCacheFile, "flush", full)
    assert compiled(double).tolist() == [0, 2, 4]


def test_a_damaged_cache_is_no_error(double, monkeypatch):
    from numba.core import caching

    def damaged(*arguments):
        raise EOFError("Ran out of input")

    monkeypatch.setattr(caching.IndexDataCacheFile, "load", damaged)
    monkeypatch.setattr(caching.IndexDataCacheFile, "_load_index", damaged)
    assert compiled(double).tolist() == [0, 2, 4]
