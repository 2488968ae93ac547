"""Options of anyone's data: patterns of paths, classes, what their labels mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictInt, ValidationInfo, field_validator, model_validator

from mdg.errors import nearest
from mdg.fields import IDS, IGNORED, MAX_CLASSES
from mdg.options.files import FileOptions

NAME, SPLIT = "{name}", "{split}"

IGNORE = "ignore"


def check_pattern(pattern: str) -> str:
    """The pattern without needless ``./``; raises ValueError where it has not one ``{name}`` or leaves the root."""
    if pattern.count(NAME) != 1:
        raise ValueError(f"expected a path with {NAME} in it once, such as 'rgb/{NAME}.png'")
    unknown = [field for field in re.findall(r"\{[^}]*\}", pattern) if field not in (NAME, SPLIT)]
    if unknown:
        raise ValueError(f"got {', '.join(unknown)} in it; expected no fields but {NAME} and {SPLIT}")
    path = PurePosixPath(pattern)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("expected a path below data.root")
    return path.as_posix()


Pattern = Annotated[str, AfterValidator(check_pattern)]


Level = Annotated[int, Field(ge=0, le=255)]


Colour = tuple[Level, Level, Level]


class FolderOptions(FileOptions):
    """Where the files lie and what their labels mean."""

    name: str = Field("Folder", min_length=1)
    """Name of the data set in results."""
    rgb: Pattern = f"{SPLIT}/rgb/{NAME}.*"
    """Path of an RGB image below `root`; a trailing `.*` stands for any image suffix."""
    thermal: Pattern = f"{SPLIT}/thermal/{NAME}.*"
    """Path of its thermal image."""
    label: Pattern = f"{SPLIT}/labels/{NAME}.*"
    """Path of its label."""
    split_file: str | None = None
    """List file of a split below `root`, such as `{split}.txt`: a name a line, or the three paths of RGB, thermal and
    label a line. Null takes all files that fit the patterns."""
    classes: list[str] = Field(min_length=2, max_length=MAX_CLASSES)
    """Names of the classes, in the order of their ids."""
    palette: list[Colour] | None = None
    """[R, G, B] per class; null takes the colour map of PASCAL VOC."""
    label_format: Literal["ids", "colours"] = "ids"
    """What a label file holds: ids, or the colours of `palette`."""
    label_map: dict[int, StrictInt | str] | None = None
    """Class (id or name) or `ignore` for every id that occurs in the label files; null takes the ids as they are."""
    ignore_ids: list[Annotated[int, Field(ge=0, lt=IDS)]] = [IGNORED]
    """Ids in the label files that are ignored in training and scoring."""
    ignore_colours: list[Colour] = []
    """Colours in the label files that are ignored."""
    unlabeled: str | None = None
    """A class that also gets a score without it: a second mean that leaves it out."""
    conditions: dict[str, str] = {}
    """Groups that are also scored apart, by a pattern of their names: {day: '*_d', night: '*_n'}."""

    # Validators of one field, where they do: the message then names its key and line.

    @field_validator("classes")
    @classmethod
    def _check_classes(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) != len(classes) or IGNORE in classes:
            raise ValueError(f"expected different names, and not '{IGNORE}', which stands for no class")
        return classes

    @field_validator("palette", "label_map", "unlabeled")
    @classmethod
    def _check_against_classes(cls, value: Any, info: ValidationInfo) -> Any:
        classes = info.data.get("classes")
        if value is None or classes is None:  # classes that are wrong are reported themselves
            return value
        if info.field_name == "palette" and len(value) != len(classes):
            raise ValueError(f"got {len(value)} colours, expected {len(classes)}, one per class")
        if info.field_name == "unlabeled" and value not in classes:
            raise ValueError(f"expected one of {', '.join(classes)}.{nearest(value, classes)}")
        if info.field_name == "label_map":
            resolve_map(value, classes)
        return value

    @model_validator(mode="after")
    def _check_together(self) -> FolderOptions:
        colours = self.label_format == "colours"
        if colours and (self.palette is None or self.label_map is not None):
            raise ValueError("label_format: colours needs a palette and takes no label_map: colours are the classes")
        if not colours and self.ignore_colours:
            raise ValueError("ignore_colours: expected label_format: colours with it; ids are ignored by ignore_ids")
        classes = {id for id, target in (self.label_map or {}).items() if target != IGNORE}
        both = sorted(classes.intersection(self.ignore_ids) - {IGNORED})
        if both:
            raise ValueError(f"got {both} both in ignore_ids and as classes in label_map, expected them in one of them")
        return self

    @model_validator(mode="after")
    def _check_splits_differ(self) -> FolderOptions:
        splits = {split for split in (self.train_split, self.val_split, self.test_split) if split is not None}
        places = (self.rgb, self.thermal, self.label, self.split_file or "")
        if len(splits) > 1 and not any(SPLIT in place for place in places):
            raise ValueError(
                f"no {SPLIT} in rgb, thermal, label or split_file, so {', '.join(sorted(splits))} would be the same "
                f"frames: put {SPLIT} into the patterns, set split_file: '{SPLIT}.txt', or leave one split and set the "
                "others to null"
            )
        return self


def resolve_map(label_map: Mapping[int, int | str] | None, classes: Sequence[str]) -> dict[int, int] | None:
    """Class ids (255 for ``ignore``) for the ids of the label files; raises ValueError for an unknown class."""
    if label_map is None:
        return None
    resolved = {}
    for source, target in label_map.items():
        if target == IGNORE:
            target = IGNORED
        elif isinstance(target, str) and target in classes:
            target = classes.index(target)
        elif not isinstance(target, int) or not 0 <= target < len(classes):
            raise ValueError(
                f"id {source} becomes '{target}'; expected 0..{len(classes) - 1}, a class name or '{IGNORE}'."
                f"{nearest(str(target), classes)}"
            )
        if not 0 <= source < IDS:
            raise ValueError(f"got id {source}, expected 0..{IDS - 1}")
        resolved[source] = target
    return resolved
