"""TensorBoard's files of a run. They are a convenience: whatever becomes of them, the run goes on."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

logger = logging.getLogger("mdg.train")


class Board:
    """Writes scalars and pictures for TensorBoard into a folder until that fails; then it says so once and is silent.

    Where tensorboard is absent or broken, the first failure is that of the import.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._writer: Any = None
        self._hook = threading.excepthook

    @property
    def works(self) -> bool:
        """Whether anything is still written."""
        return self._writer is not None

    def open(self) -> None:
        """Begins to write."""
        threading.excepthook = self._unless_of_tensorboard
        self._try(self._start)

    def _start(self) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import; evaluation does not need it

        self._writer = SummaryWriter(str(self.folder))

    def close(self) -> None:
        """Writes the rest and ends."""
        if self.works:
            self._try(self._writer.close)
        self._writer = None
        threading.excepthook = self._hook

    def scalar(self, name: str, value: float, step: int) -> None:
        """One point of a curve."""
        if self.works:
            self._try(self._writer.add_scalar, name, value, step)

    def picture(self, name: str, picture_HW3: np.ndarray, step: int) -> None:
        """One RGB picture, uint8."""
        if self.works:
            self._try(self._writer.add_image, name, picture_HW3, step, dataformats="HWC")

    def _try(self, action: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        try:
            action(*arguments, **options)
        except Exception as error:  # an absent package, one that does not fit Python, a full disk, a lost folder
            self._writer = None
            logger.warning(
                "TensorBoard's files cannot be written (%s: %s); the run goes on without them. Install tensorboard or "
                "make room, or set log.tensorboard: false",
                type(error).__name__,
                next(iter(str(error).strip().splitlines()), ""),
            )

    def _unless_of_tensorboard(self, failure: threading.ExceptHookArgs) -> None:
        # Its thread writes the files. What it fails with is raised again at the next call, which is soon enough.
        if not type(failure.thread).__module__.startswith("tensorboard."):
            self._hook(failure)
