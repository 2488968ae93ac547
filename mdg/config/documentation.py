"""The tables of all keys in docs/config.md, made from the option models and the registries."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from itertools import chain

from mdg.config.key_rows import Model, mapping_of, rows_of, summary, table
from mdg.config.schema import RunConfig
from mdg.errors import ConfigError
from mdg.registry import ComponentOptions, ComponentRegistry, Options, registry_of

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


def places(model: Model, prefix: str = "") -> dict[ComponentRegistry, list[str]]:
    """Dotted keys that hold a component, by registry, in the order in which they are met."""
    found: dict[ComponentRegistry, list[str]] = {}
    for name, field in model.model_fields.items():
        registry, mapping = registry_of(field), mapping_of(field)
        inside: list[Model] = [mapping] if mapping else []
        if registry is not None:  # an empty registry is false
            found.setdefault(registry, []).append(prefix + name)
            inside = [registry.options_of(type_name) for type_name in shipped(registry)]
        for options in inside:
            for other, keys in places(options, f"{prefix}{name}.").items():
                found[other] = list(dict.fromkeys([*found.get(other, []), *keys]))
    return found


def shipped(registry: ComponentRegistry) -> list[str]:
    """Types that mdg itself registers."""
    return [name for name in registry.names() if registry.get(name).__module__.startswith("mdg.")]


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
