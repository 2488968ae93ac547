"""YAML files as plain trees that remember where every key was written."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from mdg.config import yaml_text
from mdg.errors import ConfigError
from mdg.utils.files import file_error
from mdg.utils.limits import limit, require_within

logger = logging.getLogger("mdg.config")
Path_ = tuple[str, ...]


class Former(NamedTuple):
    """A key that is called otherwise now: its name, the value that every file of an older version holds, of which
    nothing is said, and what its values are called now."""

    name: str
    silent: Any
    values: Mapping[Any, Any] = MappingProxyType({})

    def value(self, former: Any) -> Any:
        """The value of today; of what never was one, itself."""
        known = isinstance(former, (bool, str)) and former in self.values
        return self.values[former] if known else former


# They are read as the new ones, wherever they are written.
RENAMED: dict[Path_, Former] = {
    ("ops", "selective_scan"): Former("channel_scan", "auto"),
    ("log", "tensorboard"): Former("trackers", True, {True: ["tensorboard"], False: []}),
}


@dataclass
class ConfigTree:
    """A tree of plain values and, for every dotted path in it, the place that set it."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path_, str] = field(default_factory=dict)

    def origin(self, path: Path_) -> str:
        """Where ``path`` was set, or something in it, or its nearest parent; empty for a value nobody wrote."""
        if path and path not in self.origins:
            for inner, origin in reversed(self.origins.items()):
                if inner[: len(path)] == path:
                    return origin
        for length in range(len(path), -1, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return ""

    def merge(self, other: ConfigTree) -> ConfigTree:
        """``other`` over this tree: mappings merge key by key, everything else is replaced.

        A mapping whose ``type`` differs is another component: its options are replaced as a whole.
        """
        values = _merge(self.values, other.values)
        kept = {path: origin for path, origin in self.origins.items() if _contains(values, path)}
        return ConfigTree(values, {**kept, **other.origins})


def _merge(base: Any, over: Any) -> Any:
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    if "type" in over and "type" in base and over["type"] != base["type"]:
        return over
    return {**base, **{key: _merge(base[key], value) if key in base else value for key, value in over.items()}}


def _contains(values: Any, path: Path_) -> bool:
    for word in path:
        key = _key(values, word)
        if key is None:
            return False
        values = values[key]
    return True


def _key(values: Any, word: str) -> Any:
    """What a word of a dotted key stands for in a mapping or a list: a key, a place; None where it is not there."""
    if isinstance(values, Mapping) and word in values:
        return word
    number = int(word) if word.isascii() and word.isdigit() and len(word) < 10 else None
    if number is None:
        return None
    there = number in values if isinstance(values, Mapping) else isinstance(values, list) and number < len(values)
    return number if there else None


def read_yaml(file: Path) -> ConfigTree:
    """Reads one YAML file, without following ``_base_``.

    Raises:
        ConfigError: Missing, unreadable or too large file, broken YAML, a duplicate key, a tag that would build an
            object, or a top level that is no mapping; the message names file and line.
    """
    try:
        if not file.exists():
            raise ConfigError(f"{file}: no such configuration file. Shipped ones lie under configs/.")
        if not file.is_file():
            kind = "a folder: name a YAML in it" if file.is_dir() else "no file: a configuration is a file in YAML"
            raise ConfigError(f"{file}: this is {kind}")
        require_within("yaml_bytes", file.stat().st_size, file, ConfigError)
        with open(file, "rb") as stream:
            content = stream.read(limit("yaml_bytes") + 1)  # no more, whatever the file system says of its size
        return parse_yaml(content.decode("utf-8"), str(file))
    except OSError as error:
        raise ConfigError(str(file_error(error, file))) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not a text file in UTF-8 ({error.reason}); save it in this encoding") from None
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{str(file)!r}: not the name of a file ({error})") from None


def parse_yaml(text: str, source: str) -> ConfigTree:
    """A mapping as YAML text to plain values with the origin (``source:line``) of every key.

    Raises:
        ConfigError: As :func:`mdg.config.yaml_text.parse`.
    """
    values, lines = yaml_text.parse(text, source)
    tree = ConfigTree(values, {path: f"{source}:{line}" for path, line in lines.items()})
    for former in RENAMED:
        if _contains(values, former):
            tree = _rename(tree, former)
    return tree


def _rename(tree: ConfigTree, former: Path_) -> ConfigTree:
    *parents, old = former
    path, where = (*parents, RENAMED[former].name), tree.origin(former)
    if _contains(tree.values, path):
        raise ConfigError(f"{where}: {'.'.join(former)} is the former name of {'.'.join(path)}; got both, remove it")
    part = tree.values
    for parent in parents:
        part = part[parent]
    if part[old] != RENAMED[former].silent:
        _warn_of_former(former, where)
    part[path[-1]] = RENAMED[former].value(part.pop(old))
    return ConfigTree(tree.values, {path if known == former else known: at for known, at in tree.origins.items()})


def _warn_of_former(former: Path_, where: str) -> None:
    new = ".".join((*former[:-1], RENAMED[former].name))
    logger.warning("%s: %s is now called %s; the former name will go", where, ".".join(former), new)


def apply_override(tree: ConfigTree, override: str) -> ConfigTree:
    """One ``dotted.key=value`` over the tree; the value is read as YAML, a number in the key indexes a list.

    Raises:
        ConfigError: No ``=``, an empty key, or a key that goes through something that is no mapping or list.
    """
    key, separator, text = override.partition("=")
    path = tuple(word.strip() for word in key.split("."))
    if not separator or not all(path) or not key.isprintable():
        raise ConfigError(f"--opts {override}: expected dotted.key=value, for instance train.epochs=2")
    source = f"--opts {override}"
    if len(path) > yaml_text.MAX_DEPTH:
        raise ConfigError(f"{source}: got {len(path)} keys in a row, expected at most {yaml_text.MAX_DEPTH}")
    parsed = _read_value(key, text, source)
    value = parsed.values["value"]
    if path in RENAMED:
        _warn_of_former(path, source)
        value = RENAMED[path].value(value)
        path = (*path[:-1], RENAMED[path].name)
    values = _set(tree.values, path, value, source)
    kept = {known: origin for known, origin in tree.origins.items() if _contains(values, known)}
    return ConfigTree(values, {**kept, **{(*path, *below[1:]): source for below in parsed.origins}})


def _read_value(key: str, text: str, source: str) -> ConfigTree:
    try:
        parsed = parse_yaml(f"value: {text}", source)
    except ConfigError as error:
        message = str(error).replace(f"{source}:1: ", f"{source}: ")
        quoted = "'{}'".format(text.replace("'", "''")) if set(text) & set('"\\') else f'"{text}"'
        advice = f". A value that is text goes in quotes of its own: --opts {shlex.quote(f'{key}={quoted}')}"
        raise ConfigError(message if text.strip()[:1].isdigit() else message + advice) from None
    if list(parsed.values) != ["value"]:
        raise ConfigError(f"{source}: expected one value, got several lines")
    return parsed


def _set(values: Any, path: Path_, value: Any, source: str) -> Any:
    if not path:
        return _merge(values, value)
    head, rest = path[0], path[1:]
    key = _key(values, head)
    if values is None or isinstance(values, Mapping):
        values, key = values or {}, head if key is None else key
        return {**values, key: _set(values.get(key), rest, value, source)}
    if key is not None:
        return [*values[:key], _set(values[key], rest, value, source), *values[key + 1 :]]
    advice = "; give it in its long form, a mapping with `type:` and options" if isinstance(values, str) else ""
    shown = repr(values) if len(repr(values)) <= 80 else f"{repr(values)[:77]}..."
    kind = f"a list of {len(values)}" if isinstance(values, list) else "no mapping"
    raise ConfigError(f"{source}: cannot set '{head}' inside {shown}, which is {kind}{advice}")
