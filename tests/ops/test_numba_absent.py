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


WITHOUT = {
    "absent": "sys.modules['numba'] = None",
    "without a part": "sys.path.insert(0, 'llvmlite of old')",
    "for another numpy": "sys.path.insert(0, 'another numpy')",
}
EACH = """
    import os, sys, textwrap, traceback
    import torch

    for begin in {begins!r}:  # a process each, which need not import PyTorch again
        if os.fork() == 0:
            try:
                exec(begin + textwrap.dedent({attend!r}))
                sys.stdout.flush()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        assert os.wait()[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes that share what is imported")
def test_numba_that_is_absent_or_cannot_be_imported(tmp_path, repository):
    os.symlink(repository / "mdg", tmp_path / "mdg")
    for name, broken in (
        ("llvmlite of old", "import llvmlite_of_old"),
        ("another numpy", "raise SystemError('built for another numpy\\nand more')"),
    ):
        (tmp_path / name / "numba").mkdir(parents=True)
        (tmp_path / name / "numba" / "__init__.py").write_text(broken)
    absent, *others = say(EACH.format(begins=list(WITHOUT.values()), attend=ATTEND), tmp_path).splitlines()
    assert absent == "numba is not installed" and len(others) == 2
    assert all(reason.startswith("numba cannot be used here (") for reason in others)
    assert "llvmlite_of_old" in others[0] and "another numpy" in others[1]


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
