"""YAML files as plain trees that remember where every key was written.

Only plain values come out: the safe loader builds mappings, lists, strings, numbers, booleans and null, so a YAML from
a stranger cannot run code (``!!python/...`` tags are errors).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mdg.errors import ConfigError

Path_ = tuple[str, ...]


class _SafeLoader(yaml.SafeLoader):
    """The safe loader with floats as people write them: YAML 1.1 reads ``1e-4`` as a string."""


_SafeLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:(?:[0-9][0-9_]*)?\.?[0-9_]+(?:[eE][-+]?[0-9]+)|[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*"
        r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


@dataclass
class ConfigTree:
    """A tree of plain values and, for every dotted path in it, the place that set it."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[Path_, str] = field(default_factory=dict)

    def origin(self, path: Path_) -> str:
        """Where ``path`` was set, or its nearest parent that was; empty for a value nobody wrote."""
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
    for key in path:
        if isinstance(values, dict) and key in values:
            values = values[key]
        elif isinstance(values, list) and key.isdigit() and int(key) < len(values):
            values = values[int(key)]
        else:
            return False
    return True


def read_yaml(file: Path) -> ConfigTree:
    """Reads one YAML file, without following ``_base_``.

    Raises:
        ConfigError: Missing or unreadable file, broken YAML, a duplicate key, a tag that would build an object, or a
            top level that is no mapping; the message names file and line.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such configuration file. Shipped ones lie under configs/.")
    try:
        tree = parse_yaml(file.read_text(encoding="utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not a text file in UTF-8 ({error.reason})") from None
    if not isinstance(tree.values, dict):
        raise ConfigError(f"{file}: expected a mapping of keys at the top level, got {type(tree.values).__name__}")
    return tree


def parse_yaml(text: str, source: str) -> ConfigTree:
    """Parses YAML text to plain values with the origin (``source:line``) of every key."""
    loader = _SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return ConfigTree()
        origins = {path: f"{source}:{line}" for path, line in _lines(loader, node, ())}
        return ConfigTree(loader.construct_document(node), origins)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{source}{line}: not valid YAML: {error.problem}") from None
    except ValueError as error:  # looks like a date or a number and is none
        raise ConfigError(f"{source}: not valid YAML: {error}; put it in quotes if it is text") from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply, or an anchor that contains itself") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {error}") from None
    finally:
        loader.dispose()


def _lines(loader: yaml.SafeLoader, node: yaml.Node, path: Path_) -> Iterator[tuple[Path_, int]]:
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="expected a plain word as key, got a list or mapping", problem_mark=key_node.start_mark
                )
            if key_node.value in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.MarkedYAMLError(
                    problem=f"the key '{key_node.value}' stands here twice", problem_mark=key_node.start_mark
                )
            seen.add(key_node.value)
            child = (*path, str(key_node.value))
            yield child, key_node.start_mark.line + 1
            yield from _lines(loader, value_node, child)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, str(index)), item.start_mark.line + 1
            yield from _lines(loader, item, (*path, str(index)))


def apply_override(tree: ConfigTree, override: str) -> ConfigTree:
    """One ``dotted.key=value`` over the tree; the value is read as YAML, a number in the key indexes a list.

    Raises:
        ConfigError: No ``=``, an empty key, or a key that goes through something that is no mapping or list.
    """
    key, separator, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not separator or not all(path):
        raise ConfigError(f"--opts {override}: expected dotted.key=value, for instance train.epochs=2")
    source = f"--opts {override}"
    parsed = parse_yaml(f"value: {text}", source)
    values = _set(tree.values, path, parsed.values["value"], source)
    kept = {known: origin for known, origin in tree.origins.items() if _contains(values, known)}
    return ConfigTree(values, {**kept, **{(*path, *below[1:]): source for below in parsed.origins}})


def _set(values: Any, path: Path_, value: Any, source: str) -> Any:
    if not path:
        return _merge(values, value)
    head, rest = path[0], path[1:]
    if values is None or isinstance(values, Mapping):
        values = values or {}
        return {**values, head: _set(values.get(head), rest, value, source)}
    if isinstance(values, list) and head.isdigit() and int(head) < len(values):
        index = int(head)
        return [*values[:index], _set(values[index], rest, value, source), *values[index + 1 :]]
    advice = "; give it in its long form, a mapping with `type:` and options" if isinstance(values, str) else ""
    raise ConfigError(f"{source}: cannot set '{head}' inside {values!r}, which is {_kind(values)}{advice}")


def _kind(values: Any) -> str:
    return f"a list of {len(values)}" if isinstance(values, list) else "no mapping"
