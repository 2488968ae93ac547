"""Memory that is freed and asked for again, each case in a process of its own."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from mdg.utils.allocator import USERS

BLOCK = 100 * 2**20
# Page faults of the second of two equal blocks, one after the other, and what the process holds after both are freed.
PROGRAM = f"""
import resource, sys
from mdg.utils.allocator import tune_allocator
mode = sys.argv[1]
taken = tune_allocator() if mode == "keep" else None
def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def held(): return int(next(l for l in open("/proc/self/status") if l.startswith("VmRSS")).split()[1]) // 1024
import ctypes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def use():
    block = libc.malloc({BLOCK}); ctypes.memset(block, 1, {BLOCK}); libc.free(block)
use(); before = faults(); use()
print(taken, faults() - before, held())
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is tuned"
)


def run(mode: str, **environment: str) -> tuple[str, int, int]:
    clean = {name: value for name, value in os.environ.items() if name not in (*USERS, "GLIBC_TUNABLES", "LD_PRELOAD")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], env={**clean, **environment}, capture_output=True, text=True, check=True
    )
    taken, faults, held = done.stdout.split()
    return taken, int(faults), int(held)


def test_kept_memory_is_not_faulted_in_again():
    taken, faults, held = run("keep")
    assert taken == "True" and faults < 100 and held > BLOCK // 2**20
    assert run("default")[1] > 20 * max(faults, 1)


def test_the_variables_of_the_manual_give_memory_back():
    taken, _, held = run("keep", MALLOC_ARENA_MAX="1", MALLOC_MMAP_THRESHOLD_="8388608")
    assert taken == "False" and held < BLOCK // 2**20


@pytest.mark.parametrize("environment", [{"MALLOC_ARENA_MAX": "2"}, {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=4"}])
def test_the_users_own_tuning_stands(environment):
    assert run("keep", **environment)[0] == "False"
