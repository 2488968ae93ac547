"""The table by module."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from mdg.benchmark.macs import count_macs
from mdg.benchmark.modules import measure_modules, outermost_called, row_names
from mdg.benchmark.timing import summary
from mdg.models import build_model

CPU = torch.device("cpu")


class Sleeper(nn.Module):
    """Takes some milliseconds and multiplies by a weight."""

    def __init__(self, ms: float):
        super().__init__()
        self.ms, self.weight = ms, nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.ms / 1000)
        return x


class Net(nn.Module):
    """Parts that are called, that are called twice, and that are reached through a container."""

    def __init__(self):
        super().__init__()
        self.stem = Sleeper(10)
        self.twice = Sleeper(15)
        self.backbone = nn.ModuleDict({"one": Sleeper(20), "two": nn.Sequential(Sleeper(5), nn.Linear(4, 3))})
        self.unused = Sleeper(1000)
        self.bare = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.twice(self.twice(self.stem(self.bare(x))))
        time.sleep(0.03)
        return self.backbone["two"](self.backbone["one"](x))


@pytest.fixture
def rows() -> dict[str, dict]:
    model, x = Net(), torch.zeros(2, 4)
    return {row["name"]: row for row in measure_modules(model, count_macs(model, x), lambda: model(x), CPU, 2)}


def test_parts_take_at_least_what_they_sleep(rows):
    least = {"stem": 10, "twice": 30, "backbone": 25, "rest": 30}
    assert all(rows[name]["ms"] >= ms for name, ms in least.items())
    assert rows["unused"]["ms"] == 0


def test_columns_add_up(rows):
    assert set(rows) == {"stem", "twice", "backbone", "unused", "rest"}
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert sum(row["params_m"] for row in rows.values()) == pytest.approx((5 + 15) / 1e6)
    assert rows["backbone"]["gmacs"] == pytest.approx(2 * 4 * 3 / 1e9)
    assert rows["rest"]["gmacs"] == rows["rest"]["params_m"] == 0


def test_rows_of_the_network():
    names = row_names(build_model({"type": "MDG", "rgb_backbone": "b0", "thermal_backbone": "b0"}, 9))
    assert names[:7] == [
        "rgb_backbone",
        "thermal_backbone",
        "interaction",
        "interaction.0",
        "interaction.0.mask",
        "interaction.0.attention",
        "interaction.0.mamba",
    ]
    assert {"interaction.3.mamba", "fusion.3", "decoder.head", "auxiliary.1"} <= set(names)


def test_containers_are_timed_by_what_they_hold():
    called = ["", "a.x", "a.x.inner", "a.y", "ab", "a.z.deep"]
    assert sorted(outermost_called("a", called)) == ["a.x", "a.y", "a.z.deep"]
    assert outermost_called("ab", called) == ["ab"]
    assert outermost_called("b", called) == []


def test_summary_of_times():
    times = [float(value) for value in range(101)]
    assert summary(times[::-1]) == {"median": 50, "p95": 95, "min": 0}
    assert summary([7.0]) == {"median": 7, "p95": 7, "min": 7}
