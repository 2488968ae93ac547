"""JSON of strangers: read within limits, and taken apart with messages that name the file and the place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mdg.errors import DataError
from mdg.utils.files import file_error
from mdg.utils.limits import limit, require_within

FARTHEST = 1e6  # pixels: what lies beyond is no coordinate


def read_bytes(file: Path, bound: str) -> bytes:
    """The content of a file, within a limit; raises DataError."""
    try:
        require_within(bound, file.stat().st_size, file, DataError)
        with open(file, "rb") as stream:
            content = stream.read(limit(bound) + 1)
    except OSError as error:
        raise DataError(str(file_error(error, file))) from None
    require_within(bound, len(content), file, DataError)
    return content


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: It cannot be read, is larger than ``json_bytes``, damaged (with line and column), or no object.
    """
    try:
        content = json.loads(read_bytes(file, "json_bytes"), parse_constant=_refuse)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{file}, line {error.lineno}, column {error.colno}: damaged JSON ({error.msg}); export or copy it again"
        ) from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: damaged JSON ({error}); export or copy it again") from None
    if not isinstance(content, dict):
        raise DataError(f"{file}: got JSON of a {type(content).__name__}, expected an object {{...}} of annotations")
    return content


def _refuse(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def entry(tree: Mapping[str, Any], key: str, kind: type, where: object) -> Any:
    """``tree[key]``, of a type; raises DataError naming the place."""
    value = tree.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        found = "nothing" if key not in tree else f"{type(value).__name__} {_short(value)}"
        raise DataError(f"{where}.{key}: got {found}, expected {_word(kind)}; export it again")
    return value


def rows(tree: Mapping[str, Any], key: str, where: object) -> list[tuple[str, dict[str, Any]]]:
    """The objects in a list, each with its place for messages; raises DataError."""
    found = []
    for number, row in enumerate(entry(tree, key, list, where)):
        place = f"{where}.{key}[{number}]"
        if not isinstance(row, dict):
            raise DataError(f"{place}: got {type(row).__name__} {_short(row)}, expected an object {{...}}")
        found.append((place, row))
    return found


def points(value: Any, where: object) -> np.ndarray:
    """float64 [N, 2] out of [[x, y], ...]; raises DataError naming the place."""
    try:
        found = np.array(value, np.float64).reshape(len(value), 2)
    except (ValueError, TypeError, OverflowError):
        raise DataError(f"{where}: got {_short(value)}, expected points [[x, y], ...]; draw the shape again") from None
    if not (np.abs(found) <= FARTHEST).all():  # not a number, too
        raise DataError(f"{where}: got coordinates beyond {FARTHEST:g} pixels; draw the shape again")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _word(kind: type) -> str:
    return {list: "a list", dict: "an object {...}", str: "a text", int: "a whole number"}[kind]
