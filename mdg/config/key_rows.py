"""Options as rows of a Markdown table: key, type with range, default, meaning."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Annotated, Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo

from mdg.config.type_text import type_text, yaml_text
from mdg.registry import Options, registry_of

Model = type[BaseModel]


class Row(NamedTuple):
    """One key, as text of a table."""

    key: str
    type_and_range: str
    default: str
    meaning: str


def rows_of(model: Model, names: Iterable[str] | None = None, prefix: str = "") -> list[Row]:
    """A row per key of a model of options (those in ``names``, else all), each followed by the keys of its mapping."""
    rows = []
    for name in model.model_fields if names is None else names:
        field, key = model.model_fields[name], prefix + name
        rows.append(Row(f"`{key}`", _type_and_range(field), _default(field), plain(field.description or "")))
        nested = mapping_of(field)
        rows += rows_of(nested, prefix=f"{key}.") if nested else []
    return rows


def mapping_of(field: FieldInfo) -> type[Options] | None:
    """The model of the mapping that is written under a key; None for components and plain values."""
    if registry_of(field) is not None or get_origin(field.annotation) in (list, tuple, dict):
        return None
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Options)), None)


def _type_and_range(field: FieldInfo) -> str:
    registry = registry_of(field)
    if registry is None and not mapping_of(field):
        kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
        return type_text(TypeAdapter(kind).json_schema())
    text = "mapping, keys below" if registry is None else registry.name
    if get_origin(field.annotation) is list:
        text = f"list of {text}"
    return f"{text}, or null" if type(None) in get_args(field.annotation) else text


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, Options) and value == type(value)():
        return "as below"
    return f"`{yaml_text(value)}`"


def table(rows: Iterable[Row]) -> str:
    """The rows in Markdown; empty where there are none."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    titles = " | ".join(name.replace("_", " ") for name in Row._fields)
    return "\n".join([f"| {titles} |", "|---|---|---|---|", *lines]) if lines else ""


def summary(thing: type) -> str:
    """The first paragraph of a docstring, in Markdown."""
    return plain((inspect.getdoc(thing) or "").partition("\n\n")[0])


def plain(text: str) -> str:
    """Text of a docstring as Markdown for docs/, in one line."""
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", " ".join(text.split())).replace("``", "`")
    text = re.sub(r"\bdocs/(\w+\.md)", r"[\1](\1)", text)
    return text.replace("of the design", "of [model.md](model.md)")
