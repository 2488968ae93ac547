"""From scores under corruption to the numbers of papers, by hand; and which corruptions are chosen."""

from __future__ import annotations

import math

import pytest

from mdg.data.corruptions import CORRUPTIONS, every_corruption
from mdg.engine.robustness import plan
from mdg.engine.robustness.results import shown_severities
from mdg.engine.robustness.summary import corruption_errors, retained, share_lost

MADE_UP = {
    "Fog of rgb": {1.0: 70.0, 3.0: 50.0},
    "JPEG of rgb": {1.0: 80.0, 3.0: 70.0},
    "JPEG of thermal": {1.0: 40.0, 3.0: 20.0},
}
REFERENCE = {
    "Fog of rgb": {1.0: 60.0, 3.0: 40.0},
    "JPEG of rgb": {1.0: 70.0, 3.0: 69.9},
    "JPEG of thermal": {1.0: 60.0, 3.0: 20.0},
}


def test_mpc_and_rpc_by_hand():
    whole = retained(80.0, MADE_UP)
    assert whole.corruptions == {"Fog of rgb": 60.0, "JPEG of rgb": 75.0, "JPEG of thermal": 30.0}
    assert whole.groups == {"weather": 60.0, "sensor": 52.5}
    assert whole.cameras == {"rgb": 67.5, "thermal": 30.0}
    assert whole.mpc == 55.0 and whole.rpc == 68.75


def test_mce_and_relative_mce_by_hand():
    errors = corruption_errors(80.0, MADE_UP, 70.0, REFERENCE)
    assert errors.ce == pytest.approx(
        {"Fog of rgb": 80.0, "JPEG of rgb": 5000 / 60.1, "JPEG of thermal": 100 * 140 / 120}
    )
    assert errors.mce == pytest.approx((80 + 5000 / 60.1 + 14000 / 120) / 3)
    # JPEG of RGB costs the reference 0.05 points in the mean: nothing to divide by.
    assert errors.relative == pytest.approx({"Fog of rgb": 100.0, "JPEG of thermal": 100 * 100 / 60})
    assert errors.relative_mce == pytest.approx((100 + 10000 / 60) / 2)
    itself = corruption_errors(70.0, REFERENCE, 70.0, REFERENCE)
    assert itself.mce == itself.relative_mce == 100


def test_what_has_no_number_has_none():
    assert math.isnan(retained(0.0, MADE_UP).rpc) and math.isnan(retained(80.0, {}).mpc)
    assert math.isnan(retained(80.0, {"Fog of rgb": {1.0: math.nan, 2.0: 3.0}}).mpc)
    perfect = {"Fog of rgb": {1.0: 100.0}}
    assert math.isnan(corruption_errors(100.0, perfect, 100.0, perfect).mce)
    assert (
        share_lost(60.0, 45.0) == 25.0 and share_lost(50.0, 55.0) == pytest.approx(-10) and math.isnan(share_lost(0, 0))
    )


def test_every_corruption_is_in_one_group_and_can_be_chosen():
    grouped = [kind for kinds in plan.GROUPS.values() for kind in kinds]
    assert sorted(grouped) == sorted(CORRUPTIONS)
    assert sorted(one.name for one in plan.chosen_corruptions()) == sorted(one.name for one in every_corruption())
    names = [one.name for one in plan.chosen_corruptions(["JPEG of thermal", "weather", "Fog", "Defocus"])]
    assert names == [
        "Fog of rgb",
        "Rain of rgb",
        "Snow of rgb",
        "Defocus of rgb",
        "Defocus of thermal",
        "JPEG of thermal",
    ]
    assert plan.chosen_severities([3, 1, 3.0]) == [1.0, 3.0]
    assert [shown_severities(list(range(n))) for n in (1, 2, 3, 5)] == [[0], [0, 1], [0, 1, 2], [0, 2, 4]]
