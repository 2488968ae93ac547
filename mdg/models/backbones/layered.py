"""What an encoder tells of its depth."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import nn


class Layered(nn.Module, ABC):
    """An encoder that names its layers from the image upwards, for learning rates that fall with depth."""

    @abstractmethod
    def layers(self) -> list[list[str]]:
        """Names of the modules of every layer, the lowest first; together they hold every parameter."""
