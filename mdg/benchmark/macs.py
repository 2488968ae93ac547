"""Multiply-accumulates (MACs) of a network by module, independent of device, backends and of what PyTorch fuses.

The network runs on PyTorch's meta device, where tensors have shapes and no numbers, so counting needs neither time nor
memory. A call of an operator of ``mdg.ops`` counts by its definition and is not executed.

Counted: convolutions, matrix products, attention, the scan, the FFT. Not counted: what does no product of two numbers
that meet in a sum, or little of it beside these (norms, activations, softmax, exponentials, resizing, element-wise
products). A MAC is two floating-point operations.

Legend: B batch, H W map, h heads, d head dimension; for the scan B sequences, L steps, D features, N states, R rank of
the step size, S directions.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import mdg.ops  # noqa: F401  (registers the operators)
from mdg.errors import UserError
from mdg.ops.dispatch import OPERATORS, Backend, Operator

aten = torch.ops.aten


def neighborhood_attention_macs(q_BHWhd: Tensor, k: Tensor, v: Tensor, kernel_size: int, scale: float) -> int:
    """Scores and their weighted sum over the keys of each window: ``2 B H W k k h d``.

    A window is never larger than the map. What a backend computes besides, at masked keys, is its own affair.
    """
    _, H, W, _, _ = q_BHWhd.shape
    return 2 * q_BHWhd.numel() * min(kernel_size, H) * min(kernel_size, W)


def channel_scan_macs(
    u_BLD: Tensor, projected: Tensor, dt_weight_SDR: Tensor, dt_bias: Tensor, A_SDN: Tensor, D: Tensor
) -> int:
    """``B L S D (2 N + R)``: per state the decay ``h = a h + x`` and the output ``y += C h``, and the projection of the
    step size from rank R. Exponentials, softplus and the skip are left out."""
    S, _, N = A_SDN.shape
    return u_BLD.numel() * S * (2 * N + dt_weight_SDR.shape[-1])


def attention_macs(q_BNC: Tensor, k_BMC: Tensor, v_BMC: Tensor, heads: int) -> int:
    """Scores and their weighted sum over all M keys: ``2 B N M C``."""
    return 2 * q_BNC.numel() * k_BMC.shape[1]


OPERATOR_MACS: dict[str, Callable[..., int]] = {
    "neighborhood_attention": neighborhood_attention_macs,
    "channel_scan": channel_scan_macs,
    "attention": attention_macs,
}


def operation_macs(operation: Any, args: tuple, kwargs: dict[str, Any], out: Any) -> int:
    """MACs of one ATen operation; zero for what is not counted. Inputs and output may be meta tensors."""
    if operation in FFT_MACS:
        return FFT_MACS[operation](*args, out=out)
    formula = flop_registry.get(operation)
    return formula(*args, **kwargs, out_val=out) // 2 if formula is not None else 0


def _fft_macs(x: Tensor, dims: list[int], share: float) -> int:
    # 5 n log2 n floating-point operations for a complex transform of n points, half of that for a real one: the
    # convention of FFTW's benchmarks (Frigo and Johnson, 2005), whatever the algorithm.
    points = math.prod(x.shape[dim] for dim in dims)
    return round(share * 5 * x.numel() * math.log2(points) / 2) if points > 1 else 0


FFT_MACS: dict[Any, Callable[..., int]] = {
    aten._fft_c2c: lambda x, dims, *rest, out: _fft_macs(x, dims, 1.0),
    aten._fft_r2c: lambda x, dims, *rest, out: _fft_macs(x, dims, 0.5),
    aten._fft_c2r: lambda x, dims, *rest, out: _fft_macs(out, dims, 0.5),
}


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


class OperatorCall(NamedTuple):
    """One call of an operator of ``mdg.ops``: its inputs by position, tensors by their shapes."""

    operator: str
    module: str
    inputs: tuple[Any, ...]


@dataclass
class MacCount:
    """MACs by the innermost module that did them ("" is the network itself), and what was seen on the way."""

    by_module: Counter[str] = field(default_factory=Counter)
    called: dict[str, None] = field(default_factory=dict)
    """Modules whose forward ran, in order."""
    calls: list[OperatorCall] = field(default_factory=list)

    def within(self, name: str = "") -> int:
        """MACs of a module with all that it contains."""
        return sum(macs for own, macs in self.by_module.items() if not name or f"{own}.".startswith(f"{name}."))


def count_macs(model: nn.Module, *inputs: Tensor) -> MacCount:
    """Counts one forward pass, in the mode (training or not) that the network is in.

    Args:
        model: Any network; it is copied to the meta device.
        inputs: Its inputs; their values do not matter.

    Raises:
        UserError: The network looks at values of tensors, which there are none of on the meta device.
    """
    model = copy.deepcopy(model).to("meta")
    counter = _Counter()
    try:
        with torch.no_grad(), counter.module_names(model), choosing(counter.stand_in), counter:
            model(*(x.to("meta") for x in inputs))
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"the network cannot be counted: it runs on PyTorch's meta device, where tensors have no values, and got "
            f"{type(error).__name__}: {error}. A forward pass must not depend on values (.item(), boolean indexing)."
        ) from error
    return counter.count


class _Counter(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count, self.stack = MacCount(), [""]

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self._add(operation_macs(getattr(func, "_overloadpacket", None), args, kwargs or {}, out))
        return out

    def _add(self, macs: int) -> None:
        if macs:
            self.count.by_module[self.stack[-1]] += macs

    @contextmanager
    def module_names(self, model: nn.Module) -> Iterator[None]:
        """Keeps the name of the innermost running module on top of the stack."""

        def enter(name: str) -> None:
            self.count.called[name] = None
            self.stack.append(name)

        def leave(*_: Any) -> None:
            self.stack.pop()

        with ExitStack() as hooks:
            for name, module in model.named_modules():
                before = module.register_forward_pre_hook(lambda *_, name=name: enter(name))
                after = module.register_forward_hook(leave)
                hooks.callback(before.remove)
                hooks.callback(after.remove)
            yield

    def stand_in(self, operator: Operator, choose: Choose, *inputs: Any, backend: str | None = None) -> Backend:
        """Counts a call; its result, of the shape and dtype of the first input, holds nothing."""
        if operator.name not in OPERATOR_MACS:  # an operator from outside the package runs as it is
            return choose(*inputs, backend=backend)
        self._add(OPERATOR_MACS[operator.name](*inputs))
        shapes = tuple(tuple(x.shape) if isinstance(x, Tensor) else x for x in inputs)
        self.count.calls.append(OperatorCall(operator.name, self.stack[-1], shapes))
        return Backend("counted", lambda first, *rest: torch.empty_like(first))
