"""Looking at the calls of the operators of ``mdg.ops`` while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import mdg.ops  # noqa: F401  (registers the operators)
from mdg.ops.dispatch import OPERATORS, Backend, Operator

Choose = Callable[..., Backend]


@contextmanager
def choosing(rule: Callable[..., Backend]) -> Iterator[None]:
    """Inside, ``rule(operator, choose, *inputs, backend=...)`` picks the backend of every call of an operator.

    ``choose`` is the choice that would have been made. The rule sees checked inputs, see ``mdg.ops.dispatch``.
    """
    operators = list(OPERATORS.values())
    for operator in operators:
        operator.choose = partial(rule, operator, operator.choose)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for operator in operators:
            del operator.choose  # the method of the class shows again


@contextmanager
def watched_backends() -> Iterator[dict[str, str]]:
    """Names of the backends that run inside, by operator; several of one operator are joined by commas."""
    names: dict[str, list[str]] = {}
    used: dict[str, str] = {}

    def note(operator: Operator, choose: Choose, *inputs: Any, backend: str | None = None) -> Backend:
        chosen = choose(*inputs, backend=backend)
        known = names.setdefault(operator.name, [])
        known += [] if chosen.name in known else [chosen.name]
        used[operator.name] = ", ".join(known)
        return chosen

    with choosing(note):
        yield used
