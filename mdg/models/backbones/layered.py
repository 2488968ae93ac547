"""What an encoder tells of itself: its depth, and whether it can be run stage by stage."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn


class Layered(nn.Module, ABC):
    """An encoder that names its layers from the image upwards, for learning rates that fall with depth."""

    @abstractmethod
    def layers(self) -> list[list[str]]:
        """Names of the modules of every layer, the lowest first; together they hold every parameter."""


def can_be_stepped(encoder: nn.Module) -> bool:
    """Whether an encoder has ``forward_stage``. One that says ``stepped = False`` gives all its maps at once when it is
    called, and nothing can be changed between its stages."""
    return getattr(encoder, "stepped", True)
