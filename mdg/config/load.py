"""From YAML files and ``--opts`` to a validated :class:`~mdg.config.schema.RunConfig`."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from mdg.config.schema import RunConfig
from mdg.config.yaml_tree import ConfigTree, apply_override, read_yaml
from mdg.errors import ConfigError


def load_config(file: str | Path, opts: Sequence[str] = ()) -> RunConfig:
    """Loads a YAML with its ``_base_`` files and overrides into a typed, validated configuration.

    Args:
        file: Path of the YAML; ``_base_`` paths in it are relative to the file that names them.
        opts: Overrides such as ``train.epochs=2``, applied last, in order.

    Raises:
        ConfigError: Names file, line, dotted key, what was got and what was expected; one line per mistake.
    """
    file = Path(file)
    tree = _read_with_bases(file, ())
    for override in opts:
        tree = apply_override(tree, override)
    tree.values.setdefault("name", file.stem)
    return parse_config(tree)


def parse_config(tree: ConfigTree) -> RunConfig:
    """Validates a tree; imports its ``custom_imports`` first, so that their components are known."""
    _import_custom(tree)
    try:
        return RunConfig.model_validate(tree.values)
    except ValidationError as error:
        problems = [_describe(tree, path, item) for path, item in _unfold(error.errors(), ())]
        raise ConfigError("\n".join(problems)) from None


def dump_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML that :func:`load_config` reads back to an equal object."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _read_with_bases(file: Path, chain: tuple[Path, ...]) -> ConfigTree:
    resolved = file.resolve()
    if resolved in chain:
        raise ConfigError(f"{file}: _base_ goes in a circle: {' -> '.join(p.name for p in (*chain, resolved))}")
    tree = read_yaml(file)
    bases = tree.values.pop("_base_", [])
    bases = [bases] if isinstance(bases, str) else bases
    if not isinstance(bases, list) or not all(isinstance(base, str) for base in bases):
        raise ConfigError(f"{tree.origin(('_base_',))}: _base_: expected a path or a list of paths, got {bases!r}")
    merged = ConfigTree()
    for base in bases:
        merged = merged.merge(_read_with_bases(file.parent / base, (*chain, resolved)))
    return merged.merge(tree)


def _import_custom(tree: ConfigTree) -> None:
    modules = tree.values.get("custom_imports") or []
    if not isinstance(modules, list):
        return  # the schema reports it
    for index, module in enumerate(modules):
        try:
            importlib.import_module(str(module))
        except Exception as error:  # whatever the user's module raises while it is imported
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
    got = repr(error["input"])
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] == "missing":
        found, message = "missing", "set this key"
    elif error["type"] == "unknown_key":
        found = "unknown key"
    else:
        found = f"got {got if len(got) <= 80 else got[:77] + '...'}"
        message = message.replace("Input should be ", "expected ")
    where = tree.origin(path)
    if not path:  # a rule about several keys; the message names them
        return message
    return f"{where + ': ' if where else ''}{'.'.join(path)}: {found}; {message}"
