"""Multiply-accumulates (MACs) of a network by module, independent of device, backends and of what PyTorch fuses.

PyTorch's FlopCounterMode counts; here are the formulas that it lacks. The network runs on the meta device, where
tensors have shapes and no numbers, so counting needs neither time nor memory. A call of an operator of ``mdg.ops``
counts by its definition and is not executed.

Counted: convolutions, matrix products, attention, the scan, the FFT. Not counted: what does no product of two numbers
that meet in a sum, or little of it beside these (norms, activations, softmax, exponentials, resizing, element-wise
products). A MAC is two floating-point operations, and these are what formulas give.

Legend: B batch, H W map, h heads, d head dimension; for the scan B sequences, L steps, D features, N states, R rank of
the step size, S directions; for attention N queries, M keys, C width. In formulas the names stand for shapes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import log2, prod
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.flop_counter import FlopCounterMode

import mdg.ops  # noqa: F401  (registers the operators)
from mdg.errors import UserError
from mdg.ops.dispatch import OPERATORS, Backend, Operator

aten = torch.ops.aten


def fft_flops(shape: torch.Size, dims: list[int], share: float) -> int:
    """``5 n log2 n`` for a complex transform of n points, half of that (``share``) for a real one: the convention of
    FFTW's benchmarks (Frigo and Johnson, 2005), whatever the algorithm. Rounded to whole MACs."""
    points = prod(shape[dim] for dim in dims)
    return 2 * round(share * 5 * prod(shape) * log2(points) / 2) if points > 1 else 0


FORMULAS: dict[Any, Callable[..., int]] = {
    aten._fft_c2c: lambda x, dims, *_, out_shape: fft_flops(x, dims, 1.0),
    aten._fft_r2c: lambda x, dims, *_, out_shape: fft_flops(x, dims, 0.5),
    aten._fft_c2r: lambda x, dims, *_, out_shape: fft_flops(out_shape, dims, 0.5),
}
STAND_INS: dict[str, Backend] = {}
_LIBRARY = torch.library.Library("mdg_macs", "DEF")


def stand_in(schema: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Registers a formula for the operator of ``mdg.ops`` that the schema names.

    The counter sees only operators of PyTorch. The stand-in is one: its result has the shape and dtype of the first
    input and holds nothing.
    """

    def register(formula: Callable[..., int]) -> Callable[..., int]:
        name = _LIBRARY.define(f"{schema} -> Tensor")
        _LIBRARY.impl(name, lambda first, *_: torch.empty_like(first), "Meta")
        operation = getattr(torch.ops.mdg_macs, name)
        FORMULAS[operation], STAND_INS[name] = formula, Backend("counted", operation)
        return formula

    return register


@stand_in("neighborhood_attention(Tensor q, Tensor k, Tensor v, int kernel_size, float scale)")
def neighborhood_attention_flops(
    q_BHWhd: torch.Size, k: Any, v: Any, kernel_size: int, scale: float, **out: Any
) -> int:
    """Scores and their weighted sum over the keys of each window: ``2 B H W k k h d`` MACs.

    A window is never larger than the map. What a backend computes besides, at masked keys, is its own affair.
    """
    _, H, W, _, _ = q_BHWhd
    return 4 * prod(q_BHWhd) * min(kernel_size, H) * min(kernel_size, W)


@stand_in("channel_scan(Tensor u, Tensor projected, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor D)")
def channel_scan_flops(
    u_BLD: torch.Size, projected: Any, dt_weight_SDR: torch.Size, dt_bias: Any, A_SDN: torch.Size, D: Any, **out: Any
) -> int:
    """``B L S D (2 N + R)`` MACs: per state the decay ``h = a h + x`` and the output ``y += C h``, and the projection
    of the step size from rank R. Exponentials, softplus and the skip are left out."""
    S, _, N = A_SDN
    return 2 * prod(u_BLD) * S * (2 * N + dt_weight_SDR[-1])


@stand_in("attention(Tensor q, Tensor k, Tensor v, int heads)")
def attention_flops(q_BNC: torch.Size, k_BMC: torch.Size, v: Any, heads: int, **out: Any) -> int:
    """Scores and their weighted sum over all M keys: ``2 B N M C`` MACs."""
    return 4 * prod(q_BNC) * k_BMC[1]


Choose = Callable[..., Backend]


@contextmanager
def choosing(rule: Callable[..., Backend]) -> Iterator[None]:
    """Inside, ``rule(operator, choose, *inputs, **asked)`` picks the backend of every call of an operator.

    ``choose`` is the choice that would have been made, ``asked`` what else it was asked by. The rule sees checked
    inputs, see ``mdg.ops.dispatch``.
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

    def note(operator: Operator, choose: Choose, *inputs: Any, **asked: Any) -> Backend:
        chosen = choose(*inputs, **asked)
        known = names.setdefault(operator.name, [])
        known += [] if chosen.name in known else [chosen.name]
        used[operator.name] = ", ".join(known)
        return chosen

    with choosing(note):
        yield used


class OperatorCall(NamedTuple):
    """One call of an operator of ``mdg.ops``: its inputs by position, tensors by their shapes."""

    operator: str
    module: str
    inputs: tuple[Any, ...]


@dataclass(frozen=True)
class MacCount:
    """MACs and calls of operators in one forward pass."""

    by_module: dict[str, int]
    """MACs of every module whose forward ran, with all that ran inside, in order; "" is the network itself."""
    calls: list[OperatorCall]

    def within(self, name: str = "") -> int:
        """MACs of a module with all that it contains, whether or not it is called itself."""
        return sum(self.by_module[part] for part in outermost_called(name, self.by_module))


def outermost_called(name: str, called: Iterable[str]) -> list[str]:
    """The modules in ``name`` (it included) whose forward ran and that lie in no other such module: a container, or an
    encoder that runs stage by stage, is never called itself."""
    inside = {module for module in called if f"{module}.".startswith(f"{name}.")}
    return [module for module in inside if not any(parent in inside for parent in _parents(module))]


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def count_macs(model: nn.Module, *inputs: Tensor) -> MacCount:
    """Counts one forward pass, in the mode (training or not) that the network is in.

    Args:
        model: Any network; it is copied to the meta device.
        inputs: Its inputs; their values do not matter.

    Raises:
        UserError: The network looks at values of tensors, which there are none of on the meta device.
    """
    model = copy.deepcopy(model).to("meta")
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    # The counter's names begin with the class of the network: "MDG.fusion.0".
    root, names = type(model).__name__, {module: name for name, module in model.named_modules()}
    called: list[nn.Module] = []
    calls: list[OperatorCall] = []

    def choose_stand_in(operator: Operator, choose: Choose, *inputs: Any, **asked: Any) -> Backend:
        if operator.name not in STAND_INS:
            # A backend asked for by name may refuse the meta device; that for other runtimes is made of what PyTorch
            # counts. An operator from outside the package may have none and runs as it is.
            return operator.export or choose(*inputs, **asked)
        shapes = tuple(tuple(x.shape) if isinstance(x, Tensor) else x for x in inputs)
        running = (name.partition(".")[2] for name in counter.mod_tracker.parents)
        calls.append(OperatorCall(operator.name, max(running, key=len), shapes))
        return STAND_INS[operator.name]

    try:
        # The counter keeps no account of modules that do no product; their forward is timed all the same.
        hook = register_module_forward_pre_hook(lambda module, inputs: called.append(module))
        with hook, choosing(choose_stand_in), torch.no_grad(), counter:
            model(*(x.to("meta") for x in inputs))
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"the network cannot be counted: it runs on PyTorch's meta device, where tensors have no values, and got "
            f"{type(error).__name__}: {error}. A forward pass must not depend on values (.item(), boolean indexing)."
        ) from error
    flops = counter.get_flop_counts()
    ran = (names[module] for module in called if module in names)
    return MacCount({name: sum(flops.get(f"{root}.{name}".rstrip("."), {}).values()) // 2 for name in ran}, calls)
