from __future__ import annotations

from mdg.config.load import ABSENT, differences, flatten


def test_trees_become_dotted_paths():
    tree = {"train": {"epochs": 4, "none": None}, "loss": [{"type": "Dice"}, 3], "empty": {}, "list": [], "text": "ab"}
    assert flatten(tree) == {
        "train.epochs": 4,
        "train.none": None,
        "loss.0.type": "Dice",
        "loss.1": 3,
        "empty": {},
        "list": [],
        "text": "ab",
    }


def test_differences_name_both_values():
    one, other = flatten({"a": 1, "b": 2, "d": [1, 2]}), flatten({"a": 1, "b": 3, "c": None, "d": [1]})
    assert differences(one, other) == {"b": (2, 3), "c": (ABSENT, None), "d.1": (2, ABSENT)}
    assert differences(one, one) == {}
