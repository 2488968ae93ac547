"""What an editor and a reader learn of the options: their JSON schema, and the tables of docs/config.md.

Both are made from the option models and the registries, so that they cannot say anything else than the code.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from typing import Annotated, Any, NamedTuple, get_args, get_origin

import yaml
from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from mdg.config.schema import RunConfig
from mdg.errors import ConfigError
from mdg.registry import ComponentOptions, ComponentRegistry, Options, registry_of

Node = dict[str, Any]  # of a JSON schema
NAMES = {"integer": "int", "number": "float", "boolean": "bool", "string": "str", "null": "null"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def type_text(node: Node) -> str:
    """A JSON schema without references in words: "int or null, ≥ 1", "[float, float], each > 0", "`a`, `b`"."""
    return ", ".join([_kind(node), *_limits(node)])


def yaml_text(value: Any) -> str:
    """A value as it may be written in a YAML, in one line."""
    text = yaml.safe_dump(to_jsonable_python(value), default_flow_style=True, width=10_000, sort_keys=False)
    return text.removesuffix("...\n").strip()


def _kind(node: Node) -> str:
    if "anyOf" in node:
        parts = [_kind(part) for part in node["anyOf"]]
        return (", or " if any(" or " in part for part in parts) else " or ").join(parts)
    if "const" in node or "enum" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    if "prefixItems" in node:
        return f"[{', '.join(_kind(item) for item in node['prefixItems'])}]"
    if node.get("type") == "array":
        return f"list of {_kind(node['items'])}"
    if node.get("type") == "object":
        return f"mapping to {_kind(node['additionalProperties'])}"
    return "path" if node.get("format") == "path" else NAMES[node["type"]]


def _limits(node: Node) -> list[str]:
    if "anyOf" in node:
        return [limit for part in node["anyOf"] for limit in _limits(part)]
    if node.get("type") == "array":
        return _limits_of_items(node)
    limits = [f"{sign} {_number(node[key])}" for key, sign in BOUNDS.items() if key in node]
    if "maxLength" in node:
        limits.append(f"at most {node['maxLength']} characters")
    return [*limits, *([f"like `{node['pattern']}`"] if "pattern" in node else [])]


def _number(bound: float) -> str:
    power = int(bound).bit_length()
    return f"2^{power} - 1" if power > 40 and bound == 2**power - 1 else f"{bound:.15g}"


def _limits_of_items(node: Node) -> list[str]:
    several = [_limits(item) for item in node.get("prefixItems", [node.get("items", {})])]
    limits = list(several[0])
    assert all(other == limits for other in several), node  # else a table could not say it in one word
    if limits and not limits[0].startswith("each"):
        limits[0] = f"each {limits[0]}"
    if "prefixItems" in node:
        return limits
    counts = {"at least": node.get("minItems"), "at most": node.get("maxItems")}
    return [*limits, *(f"{word} {count}" for word, count in counts.items() if count is not None)]


def json_schema() -> dict[str, Any]:
    """The schema of a YAML file under ``configs/``, generated from the typed configuration.

    A file may leave anything to its ``_base_``, so no key is required; a key that does not exist is an error.
    """
    schema = _without_required(RunConfig.model_json_schema())
    schema["properties"]["_base_"] = {
        "description": "File or files to start from, relative to this one; keys given here override theirs.",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "mdg run configuration"}


def _without_required(node: Any) -> Any:
    if isinstance(node, dict):
        # `required` is a keyword where it lists names; a property of that name would be a mapping.
        return {
            key: _without_required(value)
            for key, value in node.items()
            if not (key == "required" and isinstance(value, list))
        }
    return [_without_required(item) for item in node] if isinstance(node, list) else node


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
        for nested, below in ((mapping_of(field), f"{key}."), (items_of(field), f"{key}[].")):
            rows += rows_of(nested, prefix=below) if nested else []
    return rows


def items_of(field: FieldInfo) -> type[Options] | None:
    """The model of the mappings in the list that is written under a key; None for everything else."""
    if registry_of(field) is not None or get_origin(field.annotation) is not list:
        return None
    (kind,) = get_args(field.annotation)
    return kind if isinstance(kind, type) and issubclass(kind, Options) else None


def mapping_of(field: FieldInfo) -> type[Options] | None:
    """The model of the mapping that is written under a key; None for components and plain values."""
    if registry_of(field) is not None or get_origin(field.annotation) in (list, tuple, dict):
        return None
    kinds = [field.annotation, *get_args(field.annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Options)), None)


def _type_and_range(field: FieldInfo) -> str:
    registry = registry_of(field)
    if items_of(field):
        return "list of mappings, keys below"
    if registry is None and not mapping_of(field):
        parts = (field.annotation, *field.metadata)
        kind: Any = Annotated[parts] if field.metadata else field.annotation
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


MARKER = "<!-- From here on scripts/write_config_schema.py writes: change the docstrings of the options instead. -->"
TITLES = {
    "pipeline": "Data pipeline",
    "train": "Training",
    "eval": "Evaluation",
    "checkpoint": "Checkpoints and logs",
    "log": "Checkpoints and logs",
    "ops": "Backends",
}
SHARED_FROM = 2  # keys of a base class: a single one is repeated at every component, more stand once for all of them


def config_page(page: str) -> str:
    """docs/config.md with everything below its marker line made anew; raises ConfigError where it has none."""
    written, marker, _ = page.partition(MARKER)
    if not marker:
        raise ConfigError(f"docs/config.md: expected the line '{MARKER}' above the tables of keys; put it back")
    return f"{written}{MARKER}\n\n{key_tables()}"


def key_tables() -> str:
    """Markdown: the keys of a run, section by section, then those of every component that is shipped."""
    sections = [_run_blocks(RunConfig), *map(_registry_blocks, *zip(*places(RunConfig).items(), strict=True))]
    return "\n\n".join(filter(None, chain(*sections))) + "\n"


def _run_blocks(run: Model) -> Iterator[str]:
    mappings = {name: mapping_of(field) for name, field in run.model_fields.items()}
    yield "### The run"
    yield table(rows_of(run, [name for name, mapping in mappings.items() if not mapping]))
    sections: dict[str, dict[str, Model]] = {}
    for name, mapping in mappings.items():
        if mapping:
            sections.setdefault(TITLES.get(name, name), {})[name] = mapping
    for title, models in sections.items():
        yield f"### {title}"
        yield _paragraph(" ".join(map(summary, models.values())))
        yield table(chain(*(rows_of(model, prefix=f"{name}.") for name, model in models.items())))


def places(
    model: Model, prefix: str = "", known: Collection[ComponentRegistry] = ()
) -> dict[ComponentRegistry, list[str]]:
    """Dotted keys that hold a component, by registry, in the order in which they are met. What components hold is told
    once: not again of the networks inside of a method of training, nor of registries that are ``known``."""
    found: dict[ComponentRegistry, list[str]] = {}
    for name, field in model.model_fields.items():
        registry, mapping = registry_of(field), mapping_of(field)
        inside: list[Model] = [mapping] if mapping else []
        if registry is not None:
            told = registry in found or registry in known
            found.setdefault(registry, []).append(prefix + name)
            inside = [] if told else [registry.options_of(type_name) for type_name in shipped(registry)]
        for options in inside:
            for other, keys in places(options, f"{prefix}{name}.", [*known, *found]).items():
                found[other] = list(dict.fromkeys([*found.get(other, []), *keys]))
    return found


def shipped(registry: ComponentRegistry) -> list[str]:
    """Types that mdg itself registers."""
    return sorted(registry.declared())


def _registry_blocks(registry: ComponentRegistry, keys: list[str]) -> Iterator[str]:
    named = any(registry.name in key for key in keys)  # `model.fusion` needs no word, `data` is a data set
    yield f"### {_quoted(keys)}" + ("" if named else f": {registry.name}")
    names, short = shipped(registry), [name for name in registry.short_names() if name not in registry.names()]
    yield f"Short names: {_quoted(short)}." if short else ""
    shared = _shared({name: registry.options_of(name) for name in names})
    for base, users in shared.items():
        yield _paragraph(f"**{f'Every {registry.name}' if users == names else _quoted(users)}**: {summary(base)}")
        yield table(rows_of(base, inspect.get_annotations(base)))
    for name in names:
        options = registry.options_of(name)
        own = [key for key in options.model_fields if key != "type" and _owner(options, key) not in shared]
        yield _paragraph(f"**`{name}`**: {summary(registry.get(name))}")
        yield table(rows_of(options, own)) or ("No options of its own." if shared else "No options.")


def _shared(components: dict[str, type[ComponentOptions]]) -> dict[Model, list[str]]:
    """Classes from which several components have keys, with the names of these components; the widest class first."""
    users: dict[Model, list[str]] = {}
    for name, options in components.items():
        for base in options.__mro__[1:]:
            if issubclass(base, Options) and base not in (Options, ComponentOptions):
                users.setdefault(base, []).append(name)
    shared = {b: n for b, n in users.items() if len(n) > 1 and len(inspect.get_annotations(b)) >= SHARED_FROM}
    return dict(sorted(shared.items(), key=lambda item: -len(item[1])))


def _owner(options: Model, key: str) -> type:
    """The class that says what a key is: the last one that declares it."""
    return next(base for base in options.__mro__ if key in inspect.get_annotations(base))


def _quoted(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)
