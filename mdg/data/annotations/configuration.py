"""The lists of the splits and the YAML that make written labels a data set of ``type: Folder``."""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

import mdg
from mdg.data.annotations.source import Size
from mdg.errors import ConfigError
from mdg.options.folder import NAME, FolderOptions

SPLITS = ("train", "val", "test")
LIST = "{split}.txt"
LABEL = f"labels/{NAME}.png"
BASES = ("runtime.yaml", "models/mdg_b0.yaml", "schedules/adamw_poly_500e.yaml")
CROP, STEP = (480, 640), 32  # largest crop in training, and what its sides are multiples of
HEAD = """\
# Written by scripts/prepare_labels.py; docs/datasets.md walks through every key of data.
# python tools/check_data.py {file} reads all of it, and prints what belongs under model.normalize.
# Thermal images of more than 8 bits need data.thermal_scaling; where RGB and thermal differ in size, data.align.
"""


def share_out(names: Sequence[str], shares: Sequence[float], seed: int) -> dict[str, list[str]]:
    """Deals frames out to train, val and test, by a seed; every split with a share gets at least one.

    Args:
        names: The frames.
        shares: Of train, val and test; they add up to one.
        seed: Another one deals otherwise.

    Raises:
        ConfigError: Shares that do not add up, or more splits than frames.
    """
    if len(shares) != len(SPLITS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6 or shares[0] == 0:
        text = ",".join(f"{share:g}" for share in shares)
        raise ConfigError(
            f"--split: got {text}, expected the shares of train, val and test, which add up to 1, such as 0.8,0.1,0.1"
        )
    wanted = sum(share > 0 for share in shares)
    if len(names) < wanted:
        raise ConfigError(f"--split: got {len(names)} frame(s) for {wanted} splits, expected one for each at least")
    shuffled = sorted(names)
    random.Random(seed).shuffle(shuffled)
    counts = [max(round(share * len(names)), 1) if share > 0 else 0 for share in shares[1:]]
    while sum(counts) >= len(names):  # train keeps one
        counts[counts.index(max(counts))] -= 1
    train = len(names) - sum(counts)
    ends = (0, train, train + counts[0], len(names))
    parts = (sorted(shuffled[start:end]) for start, end in zip(ends[:-1], ends[1:], strict=True))
    return {split: part for split, part in zip(SPLITS, parts, strict=True) if part}


def data_options(
    root: Path,
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    splits: Mapping[str, Sequence[str]],
    *,
    name: str,
    rgb: str,
    thermal: str,
) -> dict[str, Any]:
    """The values under ``data:``; raises ConfigError where ``type: Folder`` would refuse them."""
    options = {
        "type": "Folder",
        "name": name,
        "root": str(root),
        "rgb": rgb,
        "thermal": thermal,
        "label": LABEL,
        "split_file": LIST,
        "classes": list(classes),
        "palette": [list(colour) for colour in palette],
        "val_split": "val" if "val" in splits else None,
        "test_split": "test" if "test" in splits else None,
        **({} if "val" in splits or len(splits["train"]) < 2 else {"holdout": 0.1}),
    }
    try:
        FolderOptions.model_validate({key: value for key, value in options.items() if key != "type"})
    except ValidationError as error:
        told = [f"{'.'.join(map(str, p['loc']))}: {p['msg'].removeprefix('Value error, ')}" for p in error.errors()]
        raise ConfigError(f"the data set cannot be described: {'; '.join(told)}") from None
    return options


def config_text(file: Path, data: Mapping[str, Any], size: Size) -> str:
    """The YAML of a run on the data.

    Args:
        file: Where it will lie.
        data: See :func:`data_options`.
        size: (H, W) of the frames, for the crops of training.
    """
    crop = [max(min(side, most) // STEP * STEP, STEP) for side, most in zip(size, CROP, strict=True)]
    tree: dict[str, Any] = {"data": dict(data)}
    tree["pipeline"] = {
        "train": [
            {"type": "ColorJitter", "p": 0.2},
            {"type": "HorizontalFlip", "p": 0.5},
            {"type": "RandomResizedCrop", "size": crop, "scale": [0.5, 2.0]},
        ],
        "workers": 2,
    }
    tree["train"] = {"epochs": 100, "batch_size": 4, "clip_grad_norm": 5.0}
    tree["optimizer"] = {"lr": 6e-4}
    tree["schedule"] = {"warmup_epochs": 2}
    if data["val_split"] is None and "holdout" not in data:  # a single frame
        tree["eval"] = {"selection": "last"}
    bases = _bases(file.parent)
    if bases:
        tree = {"_base_": bases, **tree}
    body = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, default_flow_style=None, width=110)
    return HEAD.format(file=file) + body


def _bases(folder: Path) -> list[str]:
    """The shipped files that the YAML starts from, as seen from its folder; none where they are not installed."""
    shipped = Path(mdg.__file__).resolve().parents[1] / "configs" / "_base_"
    if not all((shipped / base).is_file() for base in BASES):
        return []
    here = folder.resolve()
    near = here.is_relative_to(shipped.parents[1])
    return [Path(os.path.relpath(shipped / base, here) if near else shipped / base).as_posix() for base in BASES]
