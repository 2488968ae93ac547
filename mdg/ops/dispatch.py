"""Which implementation of an operator runs: a small registry of backends with reasons.

An operator holds its backends from the fastest to the one that runs everywhere. Each backend says *why not* when it
cannot serve the inputs at hand. Who decides, first match wins:

1. the call: ``neighborhood_attention(..., backend="tiled")``;
2. the configuration: ``set_backend("neighborhood_attention", "tiled")``;
3. the environment: ``MDG_NEIGHBORHOOD_ATTENTION=tiled``, read once, when ``mdg.ops`` is imported;
4. the automatic choice: the backend of highest priority with no reason against it. Where this machine was measured
   (:mod:`mdg.ops.measured`), those that were measured trade places: the fastest at the nearest shape comes first.

The configuration stands above the environment because a run directory records the former and not the latter.
``"auto"`` at any level asks for the automatic choice and hides the levels below.
Inside of :func:`mdg.ops.modes.exporting` none of them is asked: an operator has one implementation of operations that
every runtime knows.
Nothing here looks at tensor values, so the choice is made once, while ``torch.compile`` traces.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from mdg.errors import UserError, nearest
from mdg.ops import measured
from mdg.ops.measured import Phase
from mdg.ops.modes import is_exporting

logger = logging.getLogger("mdg.ops")
AUTO = "auto"
OPERATORS: dict[str, Operator] = {}
FORMER = {"selective_scan": "channel_scan"}  # former names of operators, taken with a warning


def _no_objection(*inputs: Any) -> None:
    return None


F = TypeVar("F", bound=Callable[..., Any])


def constant_while_tracing(function: F) -> F:
    """While torch.compile traces, the function runs as it is instead of being traced: ``assume_constant_result`` of
    ``torch.compiler`` without importing the compiler, which takes two seconds, where nothing is compiled."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


@constant_while_tracing
def is_installed(package: str) -> bool:
    """Whether a package can be found, without importing it."""
    return importlib.util.find_spec(package) is not None


constant_while_tracing(measured.is_any_in_use)
constant_while_tracing(measured.ranking)


def _is_fixed(numbers: tuple[int, ...]) -> bool:
    """Whether a compiler traces for these numbers alone, where it may trace for any."""
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return all(has_static_value(number) for number in numbers)


@dataclass(frozen=True)
class Backend:
    """One implementation. All four callables take the operator's checked inputs, by position.

    ``why_not`` tells why the backend cannot run on them (None: it can). ``why_not_automatic`` tells why it should run
    only when asked for by name, for example because its memory has no bounds. ``why_slower`` tells why the next one is
    expected to be faster; it counts only where this backend was not measured. The highest ``priority`` comes first.
    """

    name: str
    function: Callable[..., torch.Tensor]
    why_not: Callable[..., str | None] = _no_objection
    why_not_automatic: Callable[..., str | None] = _no_objection
    why_slower: Callable[..., str | None] = _no_objection
    priority: int = 0

    def objection(self, *inputs: Any) -> str | None:
        """Why the automatic choice must not take it, however fast it is."""
        return self.why_not(*inputs) or self.why_not_automatic(*inputs)


class Operator:
    """A named operator and its backends; calling it runs the chosen one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.environment = f"MDG_{name.upper()}"
        self._from_environment = os.environ.get(self.environment) or self._from_former_environment()
        self._from_config: str | None = None
        self._backends: tuple[Backend, ...] = ()
        self.export: Backend | None = None
        self.describe: Callable[..., tuple[int, ...] | None] | None = None
        self._orders: dict[tuple[str, ...], tuple[Backend, ...]] = {}  # by rankings
        self._announced: set[str] = set()

    def __call__(self, *inputs: Any, backend: str | None = None) -> torch.Tensor:
        return self.choose(*inputs, backend=backend).function(*inputs)

    def _from_former_environment(self) -> str | None:
        for former, name in FORMER.items():
            if name == self.name and (value := os.environ.get(f"MDG_{former.upper()}")):
                logger.warning("MDG_%s is now called %s; the former name will go", former.upper(), self.environment)
                return value
        return None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(backend.name for backend in self._backends)

    def register(self, backend: Backend) -> None:
        if backend.name in (AUTO, *self.names):
            raise UserError(f"{self.name}: got a second backend '{backend.name}'; expected a new name; choose another.")
        self._backends = tuple(sorted((*self._backends, backend), key=lambda b: -b.priority))
        self._orders.clear()

    def set_backend(self, name: str | None) -> None:
        if name is not None and name != AUTO:
            self._find(name, "set_backend")
        self._from_config = name

    def choose(self, *inputs: Any, backend: str | None = None, phase: Phase | None = None) -> Backend:
        """The backend that would run on these inputs. Raises UserError where a backend asked for by name cannot.

        Args:
            inputs: Of the operator, checked.
            backend: A name that stands above all others.
            phase: Whose measured times count; None: forward and backward where a gradient is asked for, else forward.
        """
        if is_exporting() and self.export is not None:
            return self.export
        name, source = self._wanted(backend)
        if name == AUTO:
            return self._choose_automatically(inputs, phase)
        chosen = self._find(name, source)
        reason = chosen.why_not(*inputs)
        if reason is not None:
            raise UserError(
                f"{self.name}: backend '{name}', asked for by {source}, cannot run: {reason}. "
                f"Use '{AUTO}' or another of: {', '.join(self.names)}."
            )
        self._announce(name, f"asked for by {source}")
        return chosen

    def report(self, *inputs: Any) -> dict[str, str | None]:
        """Every backend with the reason against it on these inputs; None where the automatic choice may take it."""
        ranking = self._ranking(inputs, None)
        reasons = {b.name: b.objection(*inputs) for b in self._backends}
        fastest = next((name for name in ranking if reasons[name] is None), None)
        for backend in self._backends:
            if reasons[backend.name] is not None or backend.name == fastest:
                continue
            is_measured = backend.name in ranking
            reasons[backend.name] = f"measured: {fastest} is faster" if is_measured else backend.why_slower(*inputs)
        return reasons

    def objection(self, backend: str, *inputs: Any) -> str | None:
        """Why the automatic choice must not take a backend on these inputs, however fast it is."""
        return self._find(backend, "objection").objection(*inputs)

    def _wanted(self, from_call: str | None) -> tuple[str, str]:
        if from_call is not None:
            return from_call, "the argument backend="
        if self._from_config is not None:
            return self._from_config, "set_backend"
        if self._from_environment is not None:
            return self._from_environment, f"the environment variable {self.environment}"
        return AUTO, "default"

    def _find(self, name: str, source: str) -> Backend:
        for backend in self._backends:
            if backend.name == name:
                return backend
        known = (AUTO, *self.names)
        raise UserError(
            f"{self.name}: got backend '{name}' from {source}; expected one of: {', '.join(known)}."
            f"{nearest(name, known)}"
        )

    def _choose_automatically(self, inputs: tuple[Any, ...], phase: Phase | None) -> Backend:
        refused: list[str] = []
        ranking = self._ranking(inputs, phase)
        for backend in self._in_order(ranking):
            is_measured = backend.name in ranking
            reason = backend.objection(*inputs)
            if reason is None and not is_measured:
                reason = backend.why_slower(*inputs)
            if reason is None:
                self._announce(backend.name, *refused, *(("by measured times",) if is_measured else ()))
                return backend
            refused.append(f"not {backend.name}: {reason}")
        raise UserError(f"{self.name}: no backend can run these inputs ({'; '.join(refused)}).")

    def _ranking(self, inputs: tuple[Any, ...], phase: Phase | None) -> tuple[str, ...]:
        """Names of the measured backends, the fastest first; empty where nothing was measured that fits."""
        if self.describe is None or not measured.is_any_in_use() or not inputs[0].is_cpu:
            return ()
        numbers = self.describe(*inputs)
        if numbers is None or (torch.compiler.is_compiling() and not _is_fixed(numbers)):
            return ()
        # What is expected to be slower comes last: of near ties the choice is that of a machine that was not measured.
        expected = sorted(self._backends, key=lambda backend: backend.why_slower(*inputs) is not None)
        names = tuple(backend.name for backend in expected)
        return measured.ranking(self.name, numbers, phase or _phase_of(inputs), names)

    def _in_order(self, ranking: tuple[str, ...]) -> tuple[Backend, ...]:
        """The backends by priority, the measured ones among themselves by time: one that was not measured, such as one
        from outside the package, keeps its place."""
        if not ranking:
            return self._backends
        if torch.compiler.is_compiling():
            return self._arrange(ranking)
        order = self._orders.get(ranking)
        if order is None:
            order = self._orders[ranking] = self._arrange(ranking)
        return order

    def _arrange(self, ranking: tuple[str, ...]) -> tuple[Backend, ...]:
        by_name = {backend.name: backend for backend in self._backends}
        fastest = [by_name[name] for name in ranking]
        order, place = [], 0
        for backend in self._backends:
            order.append(fastest[place] if backend.name in ranking else backend)
            place += backend.name in ranking
        return tuple(order)

    def _announce(self, name: str, *why: str) -> None:
        # Logging inside a traced function would break the graph.
        if torch.compiler.is_compiling() or name in self._announced:
            return
        self._announced.add(name)
        logger.info("%s runs on backend '%s' (%s)", self.name, name, "; ".join(why) or "first choice")


def _phase_of(inputs: tuple[Any, ...]) -> Phase:
    if torch.is_grad_enabled():
        for x in inputs:
            if isinstance(x, torch.Tensor) and x.requires_grad:
                return "training"
    return "forward"


def add_operator(
    name: str,
    *backends: Backend,
    export: Callable[..., torch.Tensor] | None = None,
    describe: Callable[..., tuple[int, ...] | None] | None = None,
) -> Operator:
    """A new operator.

    Args:
        name: Its name.
        backends: Its implementations.
        export: What it is inside of :func:`mdg.ops.modes.exporting`.
        describe: The positive numbers on which the time of a call depends, by which measured shapes are compared; None
            for a call so small that to look anything up would be no gain. The first input is a tensor.
    """
    operator = OPERATORS[name] = Operator(name)
    operator.export = None if export is None else Backend("export", export)
    operator.describe = describe
    for backend in backends:
        operator.register(backend)
    return operator


def get_operator(name: str) -> Operator:
    if name in FORMER:
        logger.warning("operator '%s' is now called '%s'; the former name will go", name, FORMER[name])
        name = FORMER[name]
    if name not in OPERATORS:
        known = ", ".join(OPERATORS)
        raise UserError(f"got operator '{name}'; expected one of: {known}.{nearest(name, OPERATORS)}")
    return OPERATORS[name]


def set_backend(operator: str, backend: str | None) -> None:
    """Choose the backend of ``operator`` for this process.

    ``"auto"`` asks for the automatic choice even where the environment variable names a backend; ``None`` withdraws an
    earlier call. Raises UserError for an unknown operator or backend; whether the backend can run is known at the call.
    """
    get_operator(operator).set_backend(backend)


def available_backends(operator: str) -> tuple[str, ...]:
    """Names registered for ``operator``, in the order in which the automatic choice asks them."""
    return get_operator(operator).names


def register_backend(
    operator: str,
    name: str,
    function: Callable[..., torch.Tensor],
    *,
    why_not: Callable[..., str | None] = _no_objection,
    priority: int = 0,
) -> None:
    """Add a backend from outside the package.

    ``function`` and ``why_not`` take the checked inputs of the operator by position; the modules
    ``mdg.ops.neighborhood_attention`` and ``mdg.ops.channel_scan`` list them. Priorities of the built-in backends:
    0 for the one that runs everywhere, 10 for a library, 20 for numba, 30 for Triton.
    Raises UserError where the name is taken.
    """
    get_operator(operator).register(Backend(name, function, why_not, priority=priority))
