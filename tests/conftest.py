"""What all tests share."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from own_logging import own_logging
from torch import Tensor, nn

from mdg.models.backbones.mit import VARIANTS

REPOSITORY = Path(__file__).resolve().parent.parent
MINI = REPOSITORY.parent / "shared" / "data" / "mfnet_mini"

# The same examples in every run and on every machine, none remembered; a slow machine is no failure.
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("repeatable")


def pytest_configure(config):
    """Signals arrive here as in a terminal, also where the tests were started in the background or by nohup, which
    ignore some; processes that tests start begin with what the system does."""
    for name in ("SIGINT", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if name == "SIGINT" else lambda *_: None)
    config.pluginmanager.register(SharedFixtures())
    # What was measured on this machine is no part of a test, nor of the processes that it starts.
    empty = tempfile.TemporaryDirectory(prefix="mdg-measured-")
    config.add_cleanup(empty.cleanup)
    os.environ["MDG_CACHE_DIR"] = empty.name


class SharedFixtures:
    """Not a hook of this file: pytest asks those of fixtures of a whole session only beside its root folder."""

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef) -> Iterator[object]:
        """What a tool sets up for its log does not outlast the fixture that ran it, which no test undoes."""
        if fixturedef.scope == "function":
            return (yield)
        with own_logging():
            return (yield)


# Files that take longest go first, so that no process waits for the last one at the end (`--no-loadscope-reorder`).
LONGEST = (
    "test_export.py", "test_processes.py", "test_methods.py", "test_resume.py", "test_segmentor.py", "test_deploy.py",
    "test_channel_scan.py", "test_config_hub.py", "test_config_properties.py", "test_sharding.py", "test_launch.py",
    "test_benchmark_tool.py", "test_neighborhood_attention.py", "test_tools.py", "test_notebook.py", "test_joint.py",
    "test_evaluation.py", "test_host_sync.py", "test_loaders.py",
)  # fmt: skip
TRACING = ("test_compiles", "test_operators_are_registered", "test_an_exported")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    skip = pytest.mark.skip(reason="needs a CUDA device")
    cases: Counter[Callable[..., None]] = Counter()
    for item in items:
        # Counting lines doubles the time of what is Python. It is left out for thousands of examples, where every
        # operation is traced, and for all cases of a test but the first: other tests, or it, cover that code.
        cases[item.function] += 1
        if getattr(item.obj, "is_hypothesis_test", False) or item.name.startswith(TRACING) or cases[item.function] > 1:
            item.add_marker("no_cover")
        if "gpu" in item.keywords and not torch.cuda.is_available():
            item.add_marker(skip)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_setup(item) -> Iterator[None]:
    return (yield from _uncounted(item))


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_call(item) -> Iterator[None]:
    return (yield from _uncounted(item))


def _uncounted(item) -> Iterator[None]:
    """Beside pytest-xdist, pytest-cov counts twice in a process and pauses one of the two for ``no_cover``."""
    counting = sys.gettrace() if "no_cover" in item.keywords else None
    if counting is not None:
        sys.settrace(None)
    try:
        return (yield)
    finally:
        if counting is not None:
            sys.settrace(counting)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def mfnet_mini() -> Path:
    """A small set of real frames in MFNet's layout, beside the checkout."""
    if not MINI.is_dir():
        pytest.skip(f"the small real set is absent: {MINI}")
    return MINI


@pytest.fixture(autouse=True)
def _own_logging():
    """What a tool sets up for its log ends with the test that ran it: tests see the same in any order."""
    with own_logging():
        yield


@pytest.fixture(scope="module")
def shallow() -> Iterator[None]:
    """Encoders b0 of one block a stage, which hold every kind of operation, for all tests of a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "b0", (VARIANTS["b0"][0], (1, 1, 1, 1)))
        yield


@pytest.fixture(scope="session")
def draw() -> Callable[..., Tensor]:
    """Normal numbers by shape and seed."""

    def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)

    return normal


@pytest.fixture(scope="session")
def shaken() -> Callable[..., nn.Module]:
    """Moves every parameter off its initial value, so that no test passes because a bias is zero or a gain is one."""

    def shake(module: nn.Module, std: float = 0.1, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter += std * torch.randn(parameter.shape, generator=generator).to(parameter.dtype)
        return module

    return shake
