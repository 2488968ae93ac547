"""The race of the backends."""

from __future__ import annotations

import pytest
import torch

from mdg.benchmark.macs import OperatorCall
from mdg.benchmark.race import FIGURES, largest_error, race
from mdg.ops import available_backends
from mdg.ops import neighborhood_attention as attention_function
from mdg.ops.dispatch import Backend, get_operator

CPU = torch.device("cpu")
ATTENTION = OperatorCall(
    "neighborhood_attention", "stage", ((1, 6, 7, 2, 8), (1, 6, 7, 2, 8), (1, 6, 7, 2, 8), 3, 0.35)
)
SCAN = OperatorCall("channel_scan", "scans", ((5, 4, 32), (5, 4, 52), (2, 32, 2), (2, 32), (2, 32, 12), (2, 32)))
ENCODER = OperatorCall("attention", "encoder", ((2, 300, 64), (2, 70, 64), (2, 70, 64), 2))


def test_every_backend_is_right_or_has_a_reason():
    rows = list(race([ATTENTION, SCAN, ATTENTION, ENCODER], torch.float32, CPU))
    for operator in ("neighborhood_attention", "channel_scan", "attention"):
        own = [row for row in rows if row["operator"] == operator]
        assert tuple(row["backend"] for row in own) == available_backends(operator)
    for row in rows:
        if row["reason"] is None:
            assert 0 < row["output_error"] < 1e-3 and 0 < row["gradient_error"] < 1e-3
            assert row["forward_ms"] > 0 and row["training_ms"] > 0
        else:
            assert all(row[key] is None for key in FIGURES)
    ran = {row["backend"] for row in rows if row["reason"] is None}
    assert {"tiled", "torch"} <= ran
    assert {row["calls"] for row in rows if row["operator"] == "neighborhood_attention"} == {2}
    first = next(row for row in rows if row["operator"] == "neighborhood_attention")
    assert first["module"] == "stage" and first["shape"] == [1, 6, 7, 2, 8]


@pytest.fixture
def another(monkeypatch):
    """Adds a backend to neighbourhood attention for the time of a test."""
    operator = get_operator("neighborhood_attention")

    def add(function, why_not=lambda *inputs: None):
        backend = Backend("another", function, why_not)
        monkeypatch.setattr(operator, "_backends", (*operator._backends, backend))
        return lambda dtype=torch.float32: list(race([ATTENTION], dtype, CPU))[-1]

    return add


def tiled(q, k, v, kernel_size, scale):
    return attention_function(q, k, v, kernel_size=kernel_size, scale=scale, backend="tiled")


def test_a_wrong_output_and_a_wrong_gradient_are_seen(another):
    row = another(lambda *inputs: 1.5 * tiled(*inputs).detach() + 0 * tiled(*inputs))()
    assert row["output_error"] == pytest.approx(0.5, rel=1e-3)
    assert row["gradient_error"] == pytest.approx(1)


def test_a_backend_without_gradients_is_measured_forward(another):
    row = another(tiled, lambda q, *rest: "no backward" if torch.is_grad_enabled() and q.requires_grad else None)()
    assert row["reason"] == "with gradients: no backward"
    assert row["forward_ms"] > 0 and row["output_error"] < 1e-3
    assert row["training_ms"] is row["gradient_error"] is None


def test_half_precision_is_rounded_but_not_wrong(another):
    row = another(tiled)(torch.bfloat16)
    assert 1e-4 < row["output_error"] < 2e-2 and 1e-4 < row["gradient_error"] < 5e-2


def test_error_is_the_largest_of_all_tensors():
    exact = [torch.tensor([4.0, -8.0]).double(), torch.tensor([0.5]).double()]
    assert largest_error([torch.tensor([4.0, -6.0]), torch.tensor([0.4])], exact) == pytest.approx(0.25)
