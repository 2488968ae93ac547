"""``index.json``: what the shards of a data set hold, where, and what a score over them must say.

Layout of the folder::

    index.json          facts of the data set; per split its shards; per shard bytes, SHA-256 and frames; per frame
                        name, identity, scene, condition, and suffix, offset, length and CRC-32 of each member
    train-000000.tar    KEY.rgb.png, KEY.thermal.png, KEY.label.png, KEY.json; KEY.rgb.png; ...
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mdg.errors import DataError
from mdg.fields import IGNORED, MAX_CLASSES
from mdg.utils.limits import limit, require_within

FORMAT = 1
INDEX = "index.json"
WEB_PAGE = "a web page"
PARTS = ("rgb", "thermal", "label")
SUFFIX_OF = {
    "PNG": "png", "JPEG": "jpg", "TIFF": "tiff", "BMP": "bmp", "WEBP": "webp", "JPEG2000": "jp2", "AVIF": "avif",
}  # fmt: skip
MAKE_ADVICE = "make the shards again with scripts/make_shards.py, or copy them again from where they are whole"


class Member(NamedTuple):
    """One file inside a tar.

    Attributes:
        suffix: Format of the image, without the dot.
        offset, length: Of its content, in bytes.
        crc32: Of its content.
    """

    suffix: Annotated[str, Field(pattern=r"^[a-z0-9]{1,8}$")]
    offset: Annotated[int, Field(ge=512)]
    length: Annotated[int, Field(ge=1)]
    crc32: Annotated[int, Field(ge=0, lt=1 << 32)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class FrameEntry(_Entry):
    """One frame; what is None is not known, or the same as ``name``."""

    key: Annotated[str, Field(pattern=r"^[\w-]{1,90}$")]
    name: str
    identity: str | None = None
    scene: str | None = None
    condition: str | None = None
    rgb: Member
    thermal: Member
    label: Member

    def member(self, part: str) -> Member:
        return {"rgb": self.rgb, "thermal": self.thermal, "label": self.label}[part]

    def member_name(self, part: str) -> str:
        """As the tar calls it."""
        return f"{self.key}.{part}.{self.member(part).suffix}"


class ShardEntry(_Entry):
    """One tar."""

    name: Annotated[str, Field(pattern=r"^[a-z]+-\d{6,9}\.tar$")]
    bytes: Annotated[int, Field(ge=1024)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    frames: Annotated[list[FrameEntry], Field(min_length=1)]

    @model_validator(mode="after")
    def _members_lie_inside(self) -> ShardEntry:
        for frame in self.frames:
            for part in PARTS:
                member = frame.member(part)
                if member.offset + member.length > self.bytes:
                    raise ValueError(f"{frame.member_name(part)} would end behind the end of {self.name}")
        return self


class RuleEntry(_Entry):
    """A scoring rule, as :class:`mdg.metrics.scoring.ScoringRule` has it."""

    name: str
    averaged: list[str]
    ignored: list[str]
    absent: float | None


Colour = tuple[Annotated[int, Field(ge=0, le=255)], ...]


class DatasetEntry(_Entry):
    """The facts of the data set, of all splits alike."""

    name: str
    classes: Annotated[list[str], Field(min_length=1, max_length=MAX_CLASSES)]
    palette: list[Annotated[Colour, Field(min_length=3, max_length=3)]]
    ignore_index: int
    background: int | None
    published_frames: list[dict[str, int]]
    preparation: str
    scoring_rules: Annotated[list[RuleEntry], Field(min_length=1)]

    @model_validator(mode="after")
    def _fits_its_classes(self) -> DatasetEntry:
        named = {name for rule in self.scoring_rules for name in (*rule.averaged, *rule.ignored)}
        if len(self.palette) != len(self.classes) or not named <= set(self.classes):
            raise ValueError("palette and scoring rules do not fit the classes")
        if self.background is not None and not 0 <= self.background < len(self.classes):
            raise ValueError("the background is no class")
        if self.ignore_index != IGNORED:
            raise ValueError(f"got ignore_index {self.ignore_index}, expected {IGNORED}")
        return self


class SplitEntry(_Entry):
    """One split: its name in a protocol, and its shards in order."""

    split: str
    shards: Annotated[list[ShardEntry], Field(min_length=1)]

    @property
    def frames(self) -> list[tuple[ShardEntry, FrameEntry]]:
        return [(shard, frame) for shard in self.shards for frame in shard.frames]


class Index(_Entry):
    """All of ``index.json``."""

    dataset: DatasetEntry
    splits: Annotated[dict[str, SplitEntry], Field(min_length=1)]

    def content(self) -> dict[str, Any]:
        """Plain values as they are written, with their own hash."""
        content = self.model_dump(mode="json", exclude_none=False)
        for split in content["splits"].values():
            for shard in split["shards"]:
                shard["frames"] = [{k: v for k, v in frame.items() if v is not None} for frame in shard["frames"]]
        return {"format": FORMAT, "sha256": _hash(content), **content}


def parse_index(data: bytes, where: str) -> Index:
    """The index in the content of a file.

    Args:
        data: What the file holds.
        where: Its name, for messages.

    Raises:
        DataError: No index, one of a newer version, or one that is not as it was written.
    """
    require_within("json_bytes", len(data), where, DataError)
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise DataError(
            f"{where}: got {kind_of(data)}, expected the index that scripts/make_shards.py writes; name the folder or "
            "the address that holds it as data.root"
        ) from None
    number = content.get("format") if isinstance(content, dict) else None
    if not isinstance(number, int) or "splits" not in content:
        raise DataError(f"{where}: got another JSON file, expected the index that scripts/make_shards.py writes")
    if number > FORMAT:
        raise DataError(
            f"{where}: got an index of format {number}, expected at most {FORMAT}: it was written by a newer version "
            "of mdg; update this one, or make the shards with it"
        )
    digest = content.pop("sha256", None)
    try:
        index = Index.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{where}: {_first_mistake(error)}; {MAKE_ADVICE}") from None
    if digest != _hash({key: value for key, value in content.items() if key != "format"}):
        raise DataError(f"{where}: is not as it was written (its hash differs); {MAKE_ADVICE}")
    _require_plausible(index, where)
    return index


def _require_plausible(index: Index, where: str) -> None:
    for split, entry in index.splits.items():
        names = [frame.name for _, frame in entry.frames]
        if len(set(names)) < len(names):
            raise DataError(f"{where}: the split '{split}' names a frame twice; {MAKE_ADVICE}")
        for shard, frame in entry.frames:
            largest = max(frame.member(part).length for part in PARTS)
            if largest > limit("image_bytes"):
                require_within("image_bytes", largest, f"{shard.name}, frame {frame.name}", DataError)


def _first_mistake(error: ValidationError) -> str:
    mistake = error.errors(include_url=False)[0]
    place = [str(part) for part in mistake["loc"]]
    if mistake["type"] == "missing" and place[-1] in PARTS and "frames" in place:
        frame = mistake["input"].get("name", "?") if isinstance(mistake["input"], dict) else "?"
        return f"frame {frame} has no {place[-1]} member, expected rgb, thermal and label of every frame"
    return f"not as scripts/make_shards.py writes it, at {'.'.join(place)}: {mistake['msg']}"


def kind_of(data: bytes) -> str:
    """What a file is instead, in words."""
    head = data[:4096].lstrip().lower()
    if not head:
        return "an empty file"
    if b"<html" in head or head.startswith(b"<!doctype"):
        return WEB_PAGE
    return f"{len(data):,} bytes of something else"


def key_of(place: int, name: str) -> str:
    """Name of the members of a frame: its place, so that keys differ, and what tar and WebDataset take of its name."""
    return f"{place:08d}-{re.sub(r'[^A-Za-z0-9_-]+', '_', name)[-60:]}"


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
