"""The race that measures a machine."""

from __future__ import annotations

import pytest
import torch

from mdg.benchmark import machine
from mdg.benchmark.machine import measure_machine, standard_shapes
from mdg.benchmark.macs import count_macs
from mdg.config import load_config
from mdg.models import build_model
from mdg.ops.dispatch import OPERATORS, Backend


def test_the_shapes_are_those_of_the_network():
    """What an encoder and an interaction call, found by counting."""
    model = build_model(load_config("configs/mfnet/mdg_b0.yaml", ["model.pretrained=null"]).model, 9).eval()
    pair = torch.zeros(1, 3, 480, 640, dtype=torch.uint8), torch.zeros(1, 1, 480, 640, dtype=torch.uint8)
    shapes = set(standard_shapes())
    for call in count_macs(model, *pair).calls:
        inputs = call.inputs
        if call.operator == "neighborhood_attention":
            inputs = (*inputs[:4], abs(inputs[4]))  # keys are negated by the scale
        if call.operator == "channel_scan":
            inputs = tuple((min(4800, x[0]), *x[1:]) if len(x) == 3 and x[0] > 2 else x for x in inputs)
        assert (call.operator, inputs) in shapes, call
    assert ("linear", ((19200, 64), (256, 64), (256,))) in shapes
    assert {name for name, _ in shapes} == {name for name, operator in OPERATORS.items() if operator.describe}


@pytest.fixture
def clock(monkeypatch):
    """Milliseconds by backend in place of a clock, and a record of who ran."""
    ran, ms = [], {}

    def elapsed(action, device):
        action()
        name = action.keywords["backend"] if hasattr(action, "keywords") else ran[-1]
        ran.append(name)
        return ms[name].pop(0)

    monkeypatch.setattr(machine, "elapsed_ms", elapsed)
    return ran, ms


LINEAR = ("linear", ((400, 64), (128, 64), (128,)))


def test_backends_take_turns_and_the_fastest_round_counts(clock):
    ran, ms = clock
    # Forward, backward, for the warm-up and three rounds.
    ms |= {"onednn": [99, 99, 3, 7, 2, 9, 4, 8], "torch": [99, 99, 5, 5, 6, 6, 7, 4]}
    (timing,) = measure_machine([LINEAR]).operators["linear"]
    assert (timing.numbers, timing.forward_ms, timing.backward_ms) == (
        [400, 64, 128], {"onednn": 2, "torch": 5}, {"onednn": 7, "torch": 4},
    )  # fmt: skip
    assert ran[::2] == ["onednn", "torch", "onednn", "torch", "torch", "onednn", "onednn", "torch"]


def test_the_hopeless_run_once(clock):
    ran, ms = clock
    ms |= {"onednn": 8 * [20.0], "torch": [*4 * [61.0], *4 * [1.0]]}
    (timing,) = measure_machine([LINEAR]).operators["linear"]
    assert timing.forward_ms == {"onednn": 20, "torch": 61} and ran.count("torch") == 4


def test_what_cannot_run_what_is_small_and_what_is_alone_is_left_out(monkeypatch):
    operator = OPERATORS["neighborhood_attention"]
    tiled = next(backend for backend in operator._backends if backend.name == "tiled")
    q = (1, 20, 20, 2, 16)
    shape, small = (("neighborhood_attention", (x, x, x, 5, 0.25)) for x in (q, (1, 6, 6, 1, 4)))
    monkeypatch.setattr(operator, "_backends", (tiled,))
    assert measure_machine([shape], rounds=1).operators == {}
    never = Backend("never", tiled.function, why_not=lambda *inputs: "never")
    by_name = Backend("by name", tiled.function, why_not_automatic=lambda *inputs: "by name only")
    slow = Backend("slow", tiled.function, why_slower=lambda *inputs: "a guess")
    monkeypatch.setattr(operator, "_backends", (never, by_name, slow, tiled))
    (timing,) = measure_machine([small, shape], rounds=1).operators["neighborhood_attention"]
    assert timing.forward_ms.keys() == timing.backward_ms.keys() == {"slow", "tiled"}
    assert timing.numbers == [800, 25, 16] and min(timing.forward_ms.values()) > 0
