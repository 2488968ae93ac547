"""The GPU of a Mac, as far as it can be told without one: taken by name, alone, and never given float64."""

from __future__ import annotations

import pytest
import torch

from mdg.engine.distributed import pick_device, widest_float
from mdg.engine.guard import StepGuard
from mdg.engine.state import LossMeter
from mdg.errors import ConfigError
from mdg.ops.dispatch import OPERATORS

MPS = torch.device("mps")


def test_it_is_taken_by_name_alone(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("mps") == MPS
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ConfigError, match="mps serves one process, got 2"):
        pick_device("mps", 0, 2)


def test_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="finds no GPU of a Mac"):
        pick_device("mps")


def test_nothing_wider_than_float32_is_kept_there(monkeypatch):
    assert widest_float(MPS) == torch.float32 and widest_float(torch.device("cpu")) == torch.float64
    for module in ("guard", "state"):
        monkeypatch.setattr(f"mdg.engine.{module}.widest_float", lambda device: torch.float32)
    model = torch.nn.Linear(2, 2)
    guard = StepGuard(model, torch.optim.SGD(model.parameters()), torch.amp.GradScaler("cpu", enabled=False), None)
    guard.load_state_dict({"in_a_row": 1, "total": 3})
    assert guard.counts.dtype == torch.float32 and guard.state_dict() == {"in_a_row": 1, "total": 3}
    means = LossMeter()
    means.add({"loss": torch.tensor(0.5)})
    means.load_state_dict(means.state_dict(), torch.device("cpu"))
    assert {*(value.dtype for value in means.sums.values()), means.count.dtype} == {torch.float32}


def test_operators_fall_back_to_plain_pytorch():
    """Asked with tensors that only say where they are."""

    class There:
        device, dtype, shape, requires_grad = MPS, torch.float32, (1, 8, 8, 1, 8), False

    x = There()
    for backend in OPERATORS["neighborhood_attention"].report(x, x, x, 5, 1.0).items():
        assert (backend[1] is None) == (backend[0] == "tiled"), backend
