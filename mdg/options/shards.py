"""Options of a data set that lies in shards."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from mdg.fields import UserPath
from mdg.options.files import DatasetOptions

GIB = 1 << 30
KINDS_OF_CACHE = ("none", "packed", "ram")  # of every other data set
_PATH: TypeAdapter[Path] = TypeAdapter(UserPath)


def is_address(place: str) -> bool:
    """Whether shards are fetched from there over HTTP."""
    return re.match(r"https?://", place, re.IGNORECASE) is not None


def _place(value: Any) -> str:
    """A folder as every other path, an address without the slash at its end."""
    if not isinstance(value, (str, Path)):
        raise ValueError("expected a folder, an address (http://, https://), or a list of them")
    text = str(value)
    if is_address(text):
        return text.rstrip("/")
    if scheme := re.match(r"\w{2,}://", text):  # one letter is a drive of Windows
        raise ValueError(f"got an address that begins with {scheme[0]}, expected http://, https:// or a folder")
    try:
        return str(_PATH.validate_python(value))
    except ValidationError as error:
        raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _places(value: Any) -> Any:
    return [_place(place) for place in value] if isinstance(value, (list, tuple)) and value else _place(value)


def _no_kind(value: Any) -> Any:
    if value in KINDS_OF_CACHE:
        raise ValueError(
            f"got '{value}', which is a cache of other data sets, expected a folder for the shards that are fetched, "
            "or null"
        )
    return value


class ShardsOptions(DatasetOptions):
    """Where the shards lie that `scripts/make_shards.py` wrote, and how much of a disk they may take."""

    root: Annotated[str | list[str], BeforeValidator(_places)]
    """Folder or address (`http://`, `https://`) that holds `index.json` and the shards; of a list of them, each file is
    taken from the first that has it."""
    cache: Annotated[UserPath | None, BeforeValidator(_no_kind)] = None  # type: ignore[assignment]
    """Folder on a local disk into which shards are fetched whole when they are first needed; null reads them where they
    lie. Needed for an address and for a list."""
    cache_gib: float = Field(20.0, gt=0, le=1e6)
    """GiB that `cache` holds at most, whatever the number of processes; the shard that was used longest ago goes."""
    shuffle_shards: int = Field(8, ge=1, le=4096)
    """Training takes the shards in a random order and shuffles the frames of so many of them together."""

    @property
    def places(self) -> list[str]:
        """All of ``root``."""
        return [self.root] if isinstance(self.root, str) else list(self.root)

    @model_validator(mode="after")
    def _check_places(self) -> ShardsOptions:
        if self.cache_dir is not None:
            raise ValueError(
                f"got cache_dir '{self.cache_dir}', which is for packed splits, expected null: shards that are fetched "
                "are kept in `cache`"
            )
        if self.cache is None and (not isinstance(self.root, str) or is_address(self.root)):
            raise ValueError(
                f"got root {self.root} without `cache`, expected a local folder into which shards are fetched: set "
                "cache and cache_gib"
            )
        return self
