"""Multiply-accumulates of a network by module, independent of device, backends and of what PyTorch fuses.

The network runs on PyTorch's meta device, where tensors have shapes and no numbers, so counting needs neither time nor
memory. A call of an operator of ``mdg.ops`` counts by its definition and is not executed.

Legend: B batch, H W image.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mdg.benchmark.formulas import OPERATOR_MACS, operation_macs
from mdg.benchmark.intercept import Choose, choosing
from mdg.errors import UserError
from mdg.ops.dispatch import Backend, Operator


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
