"""How much of a stranger's bytes is read: every reader has a limit, and every limit can be raised.

A limit is raised for one command with ``--limit NAME=VALUE``, which all tools take, or for a whole shell with the
environment variable ``MDG_LIMIT_NAME``. The variable is what counts, so that processes started by a command follow it.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from mdg.errors import ConfigError, UserError, nearest


class Limit(NamedTuple):
    """The default of a limit, and what it bounds."""

    default: int
    what: str


LIMITS = {
    "image_pixels": Limit(1 << 27, "pixels of an image (width x height)"),
    "image_bytes": Limit(1 << 30, "bytes of an image file"),
    "list_bytes": Limit(64 << 20, "bytes of a list of frames"),
    "folder_files": Limit(10_000_000, "files below a folder or in an archive"),
    "yaml_bytes": Limit(1 << 20, "bytes of a configuration"),
    "yaml_nodes": Limit(100_000, "values of a configuration, those that aliases repeat included"),
    "weights_directory_bytes": Limit(64 << 20, "bytes of the directory of a file of weights"),
    "yaml_files": Limit(100, "files of a configuration, those that several `_base_` repeat included"),
    "download_bytes": Limit(16 << 30, "bytes of a file that is fetched"),
    "json_bytes": Limit(64 << 20, "bytes of a results.json or another JSON file"),
    "records_bytes": Limit(1 << 28, "bytes of the records of a study, unpacked"),
    "upload_bytes": Limit(512 << 20, "bytes of a file that is dropped on the page of tools/demo_web.py"),
    "page_pixels": Limit(1 << 23, "pixels of an image that is dropped on the page of tools/demo_web.py"),
}


def limit(name: str) -> int:
    """The limit in force."""
    text = os.environ.get(_variable(name))
    return LIMITS[name].default if text is None else _number(name, text)


def require_within(name: str, got: int, where: object, error: type[UserError] = UserError) -> None:
    """Raises ``error`` where ``got`` lies above a limit, saying how the limit is raised."""
    if got > limit(name):
        raise error(
            f"{where}: got {got:,} {LIMITS[name].what}, expected at most {limit(name):,}; if the file is meant to be "
            f"so large, raise the limit with --limit {name}={got} (or {_variable(name)}={got} in the environment)"
        )


def raise_limit(text: str) -> None:
    """Follows one ``NAME=VALUE``, here and in processes started from here.

    Raises:
        ConfigError: An unknown name, or a value that is no whole number.
    """
    name, separator, value = text.partition("=")
    if not separator or name not in LIMITS:
        known = ", ".join(f"{key} ({LIMITS[key].default})" for key in LIMITS)
        raise ConfigError(f"--limit {text}: expected NAME=VALUE with one of: {known}.{nearest(name, LIMITS)}")
    os.environ[_variable(name)] = str(_number(name, value))


def _variable(name: str) -> str:
    return f"MDG_LIMIT_{name.upper()}"


def _number(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) < 1 << 63):
        raise ConfigError(f"{_variable(name)}: got {text[:40]!r}, expected a whole number from 1 up")
    return int(text)
