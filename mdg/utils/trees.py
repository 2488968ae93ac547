"""Configurations as plain trees: flat, and compared."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ABSENT = "(not set)"


def flatten(tree: Any) -> dict[str, Any]:
    """Values by dotted path: ``{"train.epochs": 4, "loss.0.type": "Dice"}``. Empty mappings and lists are values."""
    return dict(_walk(tree, ()))


def _walk(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping) and tree:
        children = tree.items()
    elif isinstance(tree, Sequence) and not isinstance(tree, str) and tree:
        children = enumerate(tree)
    else:
        yield ".".join(path), tree
        return
    for key, value in children:
        yield from _walk(value, (*path, str(key)))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Paths at which two flat trees differ, with both values; :data:`ABSENT` where one has none."""
    paths = [*one, *(path for path in other if path not in one)]
    pairs = {path: (one.get(path, ABSENT), other.get(path, ABSENT)) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}
