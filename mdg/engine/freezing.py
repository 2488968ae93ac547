"""Parts of a network that do not learn."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mdg.errors import ConfigError, nearest


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[nn.Module]:
    """Takes the gradients from the parameters that a pattern names, so that no optimizer gets them.

    Args:
        model: The network, changed.
        patterns: Names of parts or parameters as in ``model.named_parameters()``, with ``*``, ``?`` and ``[...]`` as in
            names of files: ``rgb_backbone.patch_embed1``, ``interaction``, ``*.norm1``.

    Returns:
        The BatchNorms whose statistics stay as they are: :func:`hold` them whenever the network goes into training
        mode.

    Raises:
        ConfigError: A pattern that names nothing, or nothing is left to learn.
    """
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        for name in named(model, pattern, "train.freeze"):
            parameters[name].requires_grad_(False)
    if patterns and not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError(f"train.freeze: {', '.join(patterns)}: nothing is left to learn; freeze less")
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and any(_fits(f"{name}.weight", pattern) for pattern in patterns)
    ]


def named(model: nn.Module, pattern: str, key: str) -> list[str]:
    """The parameters that a pattern names, itself or by a part that holds them.

    Raises:
        ConfigError: It names none; the message begins with ``key``.
    """
    names = [name for name, _ in model.named_parameters()]
    found = [name for name in names if _fits(name, pattern)]
    if not found:
        parts = {part for name in names for part in _above(name)}
        raise ConfigError(
            f"{key}: '{pattern}' names no part of the network; its parts are "
            f"{', '.join(name for name, _ in model.named_children())}.{nearest(pattern, parts)}"
        )
    return found


def describe_size(model: nn.Module) -> str:
    """How many parameters a network has, and how many of them learn where that is not all of them."""
    sizes = [(p.numel() / 1e6, p.requires_grad) for p in model.parameters()]
    total, learning = sum(size for size, _ in sizes), sum(size for size, learns in sizes if learns)
    text = f"{total:.2f} M parameters"
    return text if all(learns for _, learns in sizes) else f"{text}, of which {learning:.2f} M learn"


def hold(batch_norms: Sequence[nn.Module]) -> None:
    """Puts BatchNorms into evaluation mode: their statistics are used and stay."""
    for module in batch_norms:
        module.eval()


def _fits(name: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(part, pattern) for part in _above(name))


def _above(name: str) -> list[str]:
    """A name and those of all that holds it: "a.b.c", "a.b", "a"."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
