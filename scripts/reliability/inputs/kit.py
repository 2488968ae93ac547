"""What bad inputs are made from: a small data set, a finished run, its results."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

from reliability import process
from reliability.runs import CONFIG, Lab

REFUSED = (2, 3)
NAMES = tuple(f"{number:02d}" for number in range(4))
PARTS = ("rgb", "thermal", "labels")
SIZE = (32, 40)  # height, width

Make = Callable[["Kit", Path], tuple[str, list]]


class Bad(NamedTuple):
    """A bad input: ``make`` writes it into an empty folder and gives the tool and its arguments."""

    name: str
    make: Make
    codes: tuple[int, ...] = REFUSED


@dataclass(frozen=True)
class Kit:
    """Good things, made once; a case takes copies."""

    lab: Lab

    def prepare(self) -> None:
        """Makes everything now: cases run in several processes, none of which should make it for itself."""
        assert self.values and self.run and self._dataset

    @cached_property
    def values(self) -> dict[str, Any]:
        """The configuration of the victims as a tree."""
        return yaml.safe_load(CONFIG)

    @cached_property
    def run(self) -> Path:
        """A finished run with results."""
        run = self.lab.reference
        if not (run / "results").exists():
            arguments = ["--checkpoint", run / "checkpoints" / "best.pt", "--config", self.lab.config]
            outcome = process.run("tools/val_mm.py", arguments, self.lab.work / "val-output")
            assert outcome.code == 0, outcome.stderr
        return run

    def config(self, folder: Path, **changes: Any) -> Path:
        """The configuration with sections replaced, as a file in the folder."""
        return self.write(folder, {**copy.deepcopy(self.values), **changes})

    def write(self, folder: Path, content: dict[str, Any] | str | bytes, name: str = "bad.yaml") -> Path:
        """A file of a tree (as YAML), text or bytes."""
        if isinstance(content, dict):
            content = yaml.safe_dump(content, sort_keys=False)
        file = folder / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return file

    def dataset(self, folder: Path, **changes: Any) -> tuple[Path, Path]:
        """A data set of `type: Folder` and a configuration that reads it; root and configuration."""
        root = folder / "data"
        shutil.copytree(self._dataset, root)
        data = {
            "type": "Folder",
            "root": str(root),
            "rgb": "{split}/rgb/{name}.*",
            "thermal": "{split}/thermal/{name}.*",
            "label": "{split}/labels/{name}.*",
            "classes": ["a", "b", "c"],
            "val_split": None,
            "holdout": 0.34,
            **changes,
        }
        return root, self.config(folder, data=data)

    @cached_property
    def _dataset(self) -> Path:
        root, draw = self.lab.work / "dataset", np.random.default_rng(0)
        for split in ("train", "test"):
            for part in PARTS:
                (root / split / part).mkdir(parents=True)
                for name in NAMES:
                    shape = (*SIZE, 3) if part == "rgb" else SIZE
                    pixels = draw.integers(0, 3 if part == "labels" else 256, shape, dtype=np.uint8)
                    Image.fromarray(pixels).save(root / split / part / f"{name}.png")
        return root
