"""What every RGB-thermal data set is: a list of names, a way to read one of them, and the facts of its protocol.

Shape suffixes: H, W are the height and width of an image in pixels, K the number of classes, 3 the channels R, G, B.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch.utils.data import Dataset

from mdg.data.reading.files import stamp
from mdg.data.reading.names import name_bytes, read_lines
from mdg.errors import DataError, UserError
from mdg.metrics.scoring import ScoringRule, all_classes
from mdg.options.files import DatasetOptions, LabelledOptions
from mdg.utils.files import file_sha256

ROLES = ("train", "val", "test")
UNLABELLED = "unlabelled"  # a fourth role: frames of the train split that train without their labels


@dataclass(frozen=True)
class Frame:
    """One aligned pair with its label.

    Attributes:
        rgb_HW3: uint8, channels in the order R, G, B.
        thermal_HW: uint8; brighter is warmer, and black where the data set has no thermal camera.
        label_HW: uint8 class ids; 255 is ignored.
        name: Name in the split.
    """

    rgb_HW3: np.ndarray
    thermal_HW: np.ndarray
    label_HW: np.ndarray
    name: str


class Frames(Protocol):
    """Frames by their places."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Frame: ...


class TrainingFrames(Frames, Protocol):
    """Frames that may come in an order of their own, see :meth:`RGBTDataset.epoch_order`."""

    def epoch_order(self, generator: torch.Generator, rank: int, world_size: int) -> list[int] | None: ...


class RGBTDataset(Dataset, ABC):
    """A split of an RGB-thermal data set. Subclasses set the class attributes, fill ``names`` and write ``read``.

    Args:
        options: Which splits there are and which frames take part. How frames are kept is up to :func:`build_dataset`.
        role: ``train``, ``val`` or ``test``: what this split is used for. ``unlabelled``: the frames of the train split
            that ``options.labelled`` leaves; their labels are 0, and ignored where no camera saw anything.

    Attributes:
        split: The role. ``split_name`` is the name of the split on disk that plays it, ``split_label`` that name with
            what was taken out of it, for the protocol.
        names: Names of the frames, in the order of the split.

    Raises:
        DataError: The role has no split.
    """

    # All but the ignored id may differ between instances, which then set them before ``__init__`` here.
    dataset_name: str
    classes: tuple[str, ...]
    palette_K3: np.ndarray  # uint8, R, G, B per class id
    ignore_index: ClassVar[int] = 255
    published_frames: Sequence[Mapping[str, int]] = ()  # per split on disk, as papers state them
    cameras: tuple[str, ...] = ("rgb", "thermal")  # that there are; the image of one that is not is black

    def __init__(self, options: DatasetOptions, *, role: str):
        assert role in (*ROLES, UNLABELLED), role
        splits = dict(zip(ROLES, (options.train_split, options.val_split, options.test_split), strict=True))
        splits[UNLABELLED] = options.train_split
        self._held_out = role == "val" and options.val_split is None and options.holdout is not None
        split_name = options.train_split if self._held_out else splits[role]
        if split_name is None:
            source = "train" if self._held_out else role
            raise DataError(
                f"data.{source}_split is null, so {self.dataset_name} has no {role} split here: name one "
                f"with --opts data.{source}_split=NAME, or run without it (training without validation: "
                "--opts eval.selection=last; holding a tenth out of the train split: --opts data.holdout=0.1)"
            )
        self.split, self.limit = role, options.limit
        self.split_name: str = split_name
        self.holdout = options.holdout if role in ("train", UNLABELLED) or self._held_out else None
        self.labelled = options.labelled if role in ("train", UNLABELLED) else None
        self.holdout_seed = options.holdout_seed
        self.cache, self.cache_dir = options.cache, options.cache_dir
        self._kept: Frames | None = None
        self.names: list[str] = []

    def _share(self, names: Sequence[str]) -> list[str]:
        """Those of the names of the split on disk that this role uses: without or only the held-out ones, at most
        ``limit``. Which frames are held out depends on the seed and on their names, not on their order.

        Raises:
            DataError: Nothing can be held out of a single frame.
        """
        kept = list(names)
        if self.holdout is not None:
            scenes = {self.scene(name) for name in names}
            if len(scenes) < 2:
                raise DataError(
                    f"data.holdout: the split '{self.split_name}' of {self.dataset_name} has a single frame, so none "
                    "can be held out of it; add frames, or set data.holdout: null with eval.selection: last"
                )
            ranked = sorted(scenes, key=self._rank)
            held_out = set(ranked[: min(max(1, round(self.holdout * len(scenes))), len(scenes) - 1)])
            kept = [name for name in names if (self.scene(name) in held_out) == self._held_out]
        if self.labelled is not None:
            with_label = self._labelled_scenes(kept, self.labelled)
            kept = [name for name in kept if (self.scene(name) in with_label) == (self.split != UNLABELLED)]
        return kept[: self.limit]

    def _labelled_scenes(self, names: Sequence[str], labelled: LabelledOptions) -> set[str]:
        """Those whose labels count. Which ones a fraction takes depends on the seed and their names alone, and a larger
        fraction holds those of a smaller one."""
        scenes = {self.scene(name) for name in names}
        if labelled.list is not None:
            listed = [self.listed_name(entry) for entry in _listed_names(labelled.list)]
            unknown = [name for name in listed if self.scene(name) not in scenes]
            if unknown:
                raise DataError(
                    f"{labelled.list}: {len(unknown)} of its {len(listed)} names are not in the split "
                    f"'{self.split_name}' of {self.dataset_name}, such as '{unknown[0]}'; expected one name of a "
                    "frame a line"
                )
            return {self.scene(name) for name in listed}
        assert labelled.fraction is not None
        ranked = sorted(scenes, key=lambda scene: _digest(f"labelled/{labelled.seed}/{scene}"))
        return set(ranked[: max(1, round(labelled.fraction * len(scenes)))])

    def listed_name(self, entry: str) -> str:
        """The name of the frame that a line of ``data.labelled.list`` means: by default the line itself."""
        return entry

    def _rank(self, scene: str) -> bytes:
        return _digest(f"{self.holdout_seed}/{scene}")

    def scene(self, name: str) -> str:
        """What a frame shows: frames of one scene are held out together. By default every frame is its own."""
        return name

    @property
    def split_label(self) -> str:
        """The split as a protocol names it: "test", "train, held-out 10 % (seed 0)", or "train, 1/16 (seed 0) with
        labels"."""
        label = self.split_name
        if self.holdout is not None:
            part = "held-out" if self._held_out else "without the held-out"
            label += f", {part} {100 * self.holdout:g} % (seed {self.holdout_seed})"
        if self.labelled is not None:
            named = f"those of {self.labelled.list.name}" if self.labelled.list else _share_in_words(self.labelled)
            label += f", {'all but ' if self.split == UNLABELLED else ''}{named} with labels"
        return label

    @abstractmethod
    def read(self, index: int) -> Frame:
        """Reads frame ``index``; raises DataError naming the file where it cannot be used. ``dataset[index]`` gives the
        same frame, from the cache where there is one.
        """

    def condition(self, index: int) -> str | None:
        """``"day"`` or ``"night"`` where the data set tells, else None."""
        return None

    @property
    def background(self) -> int | None:
        """Id of the class of what is no object, where there is one: ``unlabeled`` or ``background``."""
        return next((k for k, name in enumerate(self.classes) if name in ("unlabeled", "background")), None)

    def identities(self) -> list[str]:
        """A name per frame that no other scene of the data set has, in whatever split. By default the names."""
        return list(self.names)

    def preparation(self) -> str:
        """How files become images where that is a choice (16-bit scaling, alignment), for the protocol."""
        return "as stored"

    def scoring_rules(self) -> tuple[ScoringRule, ...]:
        """The rules under which this data set is scored; the first one selects and is printed first."""
        return (all_classes(self.classes),)

    def epoch_order(self, generator: torch.Generator, rank: int, world_size: int) -> list[int] | None:
        """The frames that one process sees in an epoch of training, in their order, where the data set reads faster in
        an order of its own; None leaves the order to the loader.

        The parts of all processes hold every frame once, and differ by one frame at most in length.

        Args:
            generator: In the same state on every process, which follows from seed and epoch alone.
            rank, world_size: The process, and how many there are.
        """
        return None

    def scored_by(self, rank: int, world_size: int) -> range:
        """The frames that one of ``world_size`` processes scores; those of all processes are the split."""
        return range(rank, len(self), world_size)

    def sources(self, index: int) -> list[Path]:
        """The files that frame ``index`` is read from; none where it is generated."""
        return []

    def require_complete(self) -> None:  # noqa: B027  (nothing to require where there are no files)
        """Raises DataError where files of the split are missing."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Frame:
        frame = self._kept_or_read(index)
        return frame if self.split != UNLABELLED else self.without_label(frame)

    def _kept_or_read(self, index: int) -> Frame:
        if self._kept is None:
            return self.read(index)
        try:
            return self._kept[index]
        except DamagedFrame:  # which was said by who found it; the files still have it
            return self.read(index)

    def without_label(self, frame: Frame) -> Frame:
        """A frame of the role ``unlabelled`` as it is handed out: nothing of its label is left."""
        return replace(frame, label_HW=np.zeros_like(frame.label_HW))

    def keep(self, frames: Frames) -> None:
        """Serves ``frames``, which are those of this split, from now on."""
        assert len(frames) == len(self), (len(frames), len(self))
        self._kept = frames

    def fingerprint(self) -> str:
        """SHA-256 over the sorted identities: equal for splits of the same frames, in whatever order."""
        return hash_of_names(self.identities())

    def content_state(self) -> dict[str, str]:
        """What a later run compares to see whether the data are still the same, without reading a file.

        Returns:
            SHA-256 in hexadecimal: ``names`` is the fingerprint; ``sizes`` is over identity and bytes of every source
            file; ``times`` also over the time of its last change, which differs between copies. Of generated frames
            all three are over the identities, which hold the options.

        Raises:
            DataError: A file that is gone.
        """
        stamps = [[stamp(file) for file in self.sources(index)] for index in range(len(self))]
        sizes = [[size for size, _ in stamps_of_one] for stamps_of_one in stamps]
        return {
            "names": self.fingerprint(),
            "sizes": self._hash_with(sizes),
            "times": self._hash_with(stamps),
        }

    def content_hash(self) -> str:
        """SHA-256 over identities and the bytes of every source file, in hexadecimal: what tells two copies apart.

        Every file is read. Of generated frames it is the fingerprint.

        Raises:
            DataError: A file that cannot be read.
        """
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
            try:
                digests = pool.map(lambda index: [file_sha256(file) for file in self.sources(index)], range(len(self)))
                return self._hash_with(list(digests))
            except UserError as error:
                raise DataError(str(error)) from None

    def _hash_with(self, facts: Sequence[Sequence[Any]]) -> str:
        """SHA-256 over identities with what is known of their files; over the identities alone where there are none."""
        rows = zip(self.identities(), facts, strict=True)
        return hash_of_names([f"{identity}\0{list(known)}" if known else identity for identity, known in rows])

    def facts(self) -> dict[str, Any]:
        """What a score must say about its data: data set, role, split, number of files, hash, classes."""
        return {
            "dataset": self.dataset_name,
            "role": self.split,
            "split": self.split_label,
            "files": len(self),
            "sha256": self.fingerprint(),
            "classes": list(self.classes),
            "ignore_index": self.ignore_index,
            "preparation": self.preparation(),
        }


def _listed_names(file: Path) -> list[str]:
    """The names in a list, one a line.

    Raises:
        DataError: It cannot be read, or holds none.
    """
    try:
        names = list(read_lines(file).values())
    except DataError as error:
        raise DataError(f"data.labelled.list: cannot be read as a list of names: {error}") from None
    if not names:
        raise DataError(f"{file}: holds no name; expected one name of a frame a line")
    return names


def _share_in_words(labelled: LabelledOptions) -> str:
    """ "1/16 (seed 0)", or "12 % (seed 0)" where no small fraction is meant."""
    assert labelled.fraction is not None
    share = Fraction(labelled.fraction).limit_denominator(100)
    exact = abs(float(share) - labelled.fraction) < 1e-9
    return f"{share if exact else f'{100 * labelled.fraction:g} %'} (seed {labelled.seed})"


def _digest(text: str) -> bytes:
    return hashlib.sha256(name_bytes(text)).digest()


class DamagedFrame(DataError):
    """A frame that was kept and is no longer as it was; its files still have it."""


def hash_of_names(names: Iterable[str]) -> str:
    """SHA-256 over names in any order, in hexadecimal; names that are not UTF-8 count with the bytes they have."""
    return hashlib.sha256(name_bytes("\n".join(sorted(names)))).hexdigest()


def palette(colours: Sequence[Sequence[int]]) -> np.ndarray:
    """[K, 3] uint8 read-only array of R, G, B colours."""
    array_K3 = np.array(colours, dtype=np.uint8)
    array_K3.flags.writeable = False
    return array_K3


def day_or_night(name: str) -> str | None:
    """Condition by MFNet's naming: the name ends in D or N, before ``_flip`` where it has that."""
    return {"D": "day", "N": "night"}.get(name.removesuffix("_flip")[-1:])
