"""Types of options that several parts share, each with bounds that hold whatever a YAML says.

Bounds are generous: they refuse what is a slip of the finger and would end in minutes of swapping or in an overflow.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from mdg.errors import ConfigError
from mdg.utils.limits import require_within

MOST_COUNTED = 10**9
IGNORED = 255  # the class id of what takes part neither in training nor in the score
MAX_CLASSES = 255  # 255 itself is the ignored id
IDS = 65536  # largest table of the ids in label files: 16-bit files


def user_path(path: Path) -> Path:
    """The path with ``~`` and ``~name`` replaced by the home folder; ConfigError where there is no such home."""
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: expected a path: {error}") from None


def _written_path(value: object) -> object:
    if re.match(r"\$\w|\$\{|%\w+%", str(value)):  # a folder of that name would be made
        raise ValueError("expected a path: variables of a shell are not replaced here; `~` is the home folder")
    if value == "":  # Path("") would be the folder one happens to stand in
        raise ValueError("expected a path; a folder can be named as `.`")
    return value


def _image_size(size: tuple[int, int]) -> tuple[int, int]:
    require_within("image_pixels", size[0] * size[1], f"{size[0]}x{size[1]}")
    return size


UserPath = Annotated[Path, BeforeValidator(_written_path), AfterValidator(user_path)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Count = Annotated[int, Field(ge=1, le=MOST_COUNTED)]
"""How many, or every how many: epochs, steps, frames."""
BatchSize = Annotated[int, Field(ge=1, le=4096)]
Pictures = Annotated[int, Field(ge=0, le=1000)]
Channels = Annotated[int, Field(ge=1, le=16384)]
Side = Annotated[int, Field(ge=1, le=16384)]
Size = Annotated[tuple[Side, Side], AfterValidator(_image_size)]
"""[height, width] in pixels."""
