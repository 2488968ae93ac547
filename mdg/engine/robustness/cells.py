"""Cells that are measured, each a file of its own under the setting in which it was measured.

::

    DIR/cells/<setting>/
        setting.json          checkpoint, configuration, data, seed and code, whose hash names the folder
        clean.json            the score without corruption
        Fog-rgb-3.json        a corruption of a camera at a severity

A file is there whole or not at all. One that was measured with another checkpoint, configuration, data, seed or code
lies in another folder, so that no two settings are ever mixed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mdg.data.corruptions import Corruption
from mdg.utils.files import explained, plain, write_json
from mdg.utils.limits import require_within

FORMAT = 1


@dataclass(frozen=True)
class Task:
    """A cell to measure: a corruption at a severity, or the clean score (None at 0)."""

    corruption: Corruption | None
    severity: float

    @property
    def file_name(self) -> str:
        """ "Fog-rgb-3.json"."""
        if self.corruption is None:
            return "clean.json"
        return f"{type(self.corruption).__name__}-{self.corruption.camera}-{self.severity!r}.json".replace(".0.j", ".j")

    @property
    def title(self) -> str:
        """ "Fog of rgb at severity 3"."""
        return "clean" if self.corruption is None else f"{self.corruption.name} at severity {self.severity:g}"

    def facts(self) -> dict[str, Any]:
        """Type, camera and severity."""
        if self.corruption is None:
            return {"type": None, "camera": None, "severity": 0.0}
        kind = type(self.corruption).__name__
        return {"type": kind, "camera": self.corruption.camera, "severity": float(self.severity)}


class CellStore:
    """Cells of one network in one setting.

    Args:
        folder: ``DIR``.
        setting: Everything that a score depends on, in plain values.
    """

    def __init__(self, folder: Path, setting: Mapping[str, Any]):
        self.setting = plain(dict(setting))
        text = json.dumps(self.setting, sort_keys=True)
        self.digest = hashlib.sha256(text.encode()).hexdigest()
        self.folder = folder / "cells" / self.digest[:16]

    def read(self, task: Task) -> dict[str, Any] | None:
        """What was measured; None where it was not, or where the file is not what :meth:`write` wrote.

        Raises:
            UserError: A file that cannot be read.
        """
        file = self.folder / task.file_name
        if not file.is_file():
            return None
        with explained(file):
            require_within("json_bytes", file.stat().st_size, file)
            try:
                content = json.loads(file.read_bytes())
            except (ValueError, RecursionError):  # somebody changed it
                return None
        fits = isinstance(content, dict) and content.get("format") == FORMAT and isinstance(content.get("scores"), dict)
        return (
            content if fits and content.get("setting") == self.digest and content.get("cell") == task.facts() else None
        )

    def write(self, task: Task, content: Mapping[str, Any]) -> None:
        """Keeps a cell. Raises as :func:`mdg.utils.files.replacing`."""
        about = self.folder / "setting.json"
        if not about.is_file():
            write_json(about, self.setting)
        cell = {"format": FORMAT, "setting": self.digest, "cell": task.facts(), **content}
        write_json(self.folder / task.file_name, cell)
