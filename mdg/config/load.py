"""From YAML files and ``--opts`` to a validated :class:`~mdg.config.schema.RunConfig`, and back to plain trees."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from mdg.config import yaml_text
from mdg.config.schema import RunConfig, run_name
from mdg.config.yaml_tree import ConfigTree, apply_override, read_yaml
from mdg.errors import ConfigError
from mdg.registry import Options
from mdg.utils.limits import require_within

Typed = TypeVar("Typed", bound=Options)
MOST_PROBLEMS = 20  # lines of one message
READ_AS = {bool: "a boolean", int: "a number", float: "a number", type(None): "null", dict: "a mapping", list: "a list"}


def load_config(file: str | Path, opts: Sequence[str] = ()) -> RunConfig:
    """Loads a YAML with its ``_base_`` files and overrides into a typed, validated configuration.

    Args:
        file: Path of the YAML; ``_base_`` paths in it are relative to the file that names them.
        opts: Overrides such as ``train.epochs=2``, applied last, in order.

    Raises:
        ConfigError: Names file, line, dotted key, what was got and what was expected; one line per mistake.
    """
    file = Path(file)
    tree = _read_with_bases(file, (), [])
    for override in opts:
        tree = apply_override(tree, override)
    tree.values.setdefault("name", run_name(file.stem))
    return parse_config(tree)


def parse_config(tree: ConfigTree) -> RunConfig:
    """Validates a tree; imports its ``custom_imports`` first, so that their components are known."""
    _import_custom(tree)
    return _validate(tree, RunConfig)


def read_options(file: str | Path, model: type[Typed]) -> Typed:
    """A YAML that is no configuration of a run as typed options; raises ConfigError as :func:`load_config`."""
    file = Path(file)
    tree = read_yaml(file)
    tree.origins[()] = str(file)
    return _validate(tree, model)


def _validate(tree: ConfigTree, model: type[Typed]) -> Typed:
    try:
        return model.model_validate(tree.values)
    except ValidationError as error:
        found = list(_unfold(error.errors(), ()))
        problems = [_describe(tree, path, item) for path, item in found[:MOST_PROBLEMS]]
        more = [f"... and {len(found) - MOST_PROBLEMS} more"] if len(found) > MOST_PROBLEMS else []
        raise ConfigError("\n".join([*problems, *more])) from None


def dump_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML that :func:`load_config` reads back to an equal object."""
    return yaml_text.dump(config.model_dump(mode="json"))


def _read_with_bases(file: Path, chain: tuple[Path, ...], read: list[Path]) -> ConfigTree:
    tree = read_yaml(file)
    resolved = file.resolve()
    if resolved in chain:
        raise ConfigError(f"{file}: _base_ goes in a circle: {' -> '.join(p.name for p in (*chain, resolved))}")
    read.append(resolved)
    require_within("yaml_files", len(read), file, ConfigError)
    bases = tree.values.pop("_base_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{tree.origin(('_base_',))}: _base_: expected a path or a list of paths, got {bases!r}")
    tree.origins[()] = str(file)  # of what is missing in it
    merged = ConfigTree()
    for base in bases:
        try:
            path = file.parent / Path(base).expanduser()
        except RuntimeError as error:  # nobody of that name
            raise ConfigError(f"{tree.origin(('_base_',))}: _base_: {base!r}: {error}") from None
        merged = merged.merge(_read_with_bases(path, (*chain, resolved), read))
    return merged.merge(tree)


def _import_custom(tree: ConfigTree) -> None:
    modules = tree.values.get("custom_imports")
    if not isinstance(modules, list) or not all(isinstance(module, str) for module in modules):
        return  # the schema reports it
    for index, module in enumerate(modules):
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:  # whatever the user's module raises while it is imported
            where = tree.origin(("custom_imports", str(index)))
            raise ConfigError(
                f"{where}: custom_imports: cannot import '{module}' ({type(error).__name__}: {error}). It must "
                "be importable from here: install it, or add the folder that holds it to PYTHONPATH."
            ) from None


def _unfold(errors: Iterable[Any], prefix: tuple[str, ...]) -> Iterable[tuple[tuple[str, ...], Any]]:
    for error in errors:
        path = (*prefix, *map(str, error["loc"]))
        if error["type"] == "component":
            yield from _unfold(error["ctx"]["errors"], path)
        else:
            yield path, error


def _describe(tree: ConfigTree, path: tuple[str, ...], error: Any) -> str:
    value = error["input"]
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        found, message = "missing", "set this key"
    elif error["type"] == "unknown_key":
        found = "unknown key"
    else:
        found = f"got {_short(repr(value), 80)}"
        message = message.replace("Input should be ", "expected ") + _advice(error["type"], value)
    where = tree.origin(path)
    if not path:  # a rule about several keys; the message names them
        return message
    return f"{where + ': ' if where else ''}{_short('.'.join(path), 200)}: {found}; {message}"


def _advice(kind: str, value: Any) -> str:
    """What YAML made of a word that was meant as text."""
    if type(value) in READ_AS and (kind == "string_type" or (kind == "literal_error" and isinstance(value, bool))):
        return f". YAML reads this as {READ_AS[type(value)]}; if it is meant as text, put it in quotes"
    if isinstance(value, bool) and kind.startswith(("greater_than", "less_than")):
        return ". YAML reads yes, no, on, off, true and false as a boolean; write a number"
    return ""


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."


ABSENT = "(not set)"


def flatten(tree: Any) -> dict[str, Any]:
    """Values by dotted path: ``{"train.epochs": 4, "loss.0.type": "Dice"}``. Empty mappings and lists are values."""
    return dict(_walk(tree, ()))


def _walk(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    children: Iterable[tuple[Any, Any]]
    if isinstance(tree, Mapping) and tree:
        children = tree.items()
    elif isinstance(tree, Sequence) and not isinstance(tree, str) and tree:
        children = enumerate(tree)
    else:
        yield ".".join(path), tree
        return
    for key, value in children:
        yield from _walk(value, (*path, str(key)))


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Paths at which two flat trees differ, with both values; :data:`ABSENT` where one has none."""
    paths = [*one, *(path for path in other if path not in one)]
    pairs = {path: (one.get(path, ABSENT), other.get(path, ABSENT)) for path in paths}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}
