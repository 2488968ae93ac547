"""YAML text to plain values and back, when the text may come from a stranger.

Only mappings, lists, strings, numbers, booleans and null come out, so no YAML can run code. What aliases repeat counts
as often as it is repeated, and depth is bounded, so that a small text stands for a small configuration. Where YAML 1.1
would read a value as what nobody meant (``010`` as eight, ``1:30`` as ninety), it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from mdg.errors import ConfigError
from mdg.utils.limits import require_within
from mdg.utils.yaml_loader import MAX_DEPTH, TOO_DEEP, BoundedLoader

COUNTED_TO = 1 << 62
PLAIN = [f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "merge")]
FLOAT = re.compile(
    r"^[-+]?(?:(?:[0-9][0-9_]*)?\.?[0-9_]+(?:[eE][-+]?[0-9]+)|[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*"
    r"|\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
NUMBER_IN_DISGUISE = re.compile(r"[-+]?(?:0[0-9_]+|[0-9_]+(?::[0-9_.]+)+)")
NO_TEXT = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def _resolvers() -> dict[str, list]:
    """What an unquoted word may stand for: floats as people write them (YAML 1.1 takes ``1e-4`` for a string); no
    dates."""
    kept = {
        first: [(tag, form) for tag, form in rules if tag in PLAIN and not tag.endswith(":float")]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for first in "-+0123456789.":
        kept.setdefault(first, []).append(("tag:yaml.org,2002:float", FLOAT))
    return kept


class _Loader(BoundedLoader):
    yaml_implicit_resolvers = _resolvers()

    def __init__(self, text: str):
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _problem(TOO_DEEP, self.peek_event())
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError) as error:  # `!!int a`, `!!bool perhaps`, an integer of 5000 digits
            raise _problem(f"{_short(node.value)} cannot be read as {_kind(node)} ({error})", node) from None


class _Dumper(yaml.SafeDumper):
    """Quotes whatever the loader, or another program's, would not read as a string."""

    yaml_implicit_resolvers = {
        first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *_resolvers().get(first, [])]
        for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *_resolvers()}
    }


def dump(values: Any) -> str:
    """Plain values as YAML that :func:`parse` reads back to equal ones."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def parse(text: str, source: str) -> tuple[dict[Any, Any], dict[tuple[str, ...], int]]:
    """A mapping as YAML.

    Returns:
        The values, and for every path of keys and list places in them the line that wrote it.

    Raises:
        ConfigError: Anything that is no mapping of plain values within the limits ``yaml_bytes`` and ``yaml_nodes``;
            the message names ``source`` and, where there is one, the line.
    """
    if not isinstance(text, str):
        raise ConfigError(f"{source}: expected text in YAML, got {type(text).__name__}")
    require_within("yaml_bytes", len(text), source, ConfigError)
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return {}, {}
        _check(node, source)
        if not isinstance(node, yaml.MappingNode):
            raise ConfigError(f"{source}: expected a mapping of keys at the top level, got {_kind(node)}")
        lines = dict(_lines(node, ()))
        values = loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{source}{line}: not valid YAML: {error.problem or error.context}") from None
    except yaml.reader.ReaderError as error:
        number = text.count("\n", 0, error.position) + 1
        raise ConfigError(
            f"{source}:{number}: not valid YAML: the character U+{ord(text[error.position]):04X} is none of a text"
        ) from None
    finally:
        if loader is not None:
            loader.dispose()
    return values, lines


def _check(root: yaml.Node, source: str) -> None:
    """Refuses values that are not plain, and more of them than the limits allow."""
    measured: dict[int, tuple[int, int] | None] = {}  # values and levels of a node; None while it is being measured

    def measure(node: yaml.Node) -> tuple[int, int]:
        if id(node) in measured:
            known = measured[id(node)]
            if known is None:
                raise _problem("an anchor that contains itself", node)
            return known
        measured[id(node)] = None
        if node.tag not in PLAIN:
            raise _problem(f"the tag '{_short(node.tag)}' is none of a plain value; leave it out", node)
        values, levels = 1, 1
        for child in _children(node):
            below, deep = measure(child)
            values, levels = min(values + below, COUNTED_TO), max(levels, deep + 1)
        if levels > MAX_DEPTH:
            raise _problem(TOO_DEEP, node)
        measured[id(node)] = values, levels
        return values, levels

    require_within("yaml_nodes", measure(root)[0], source, ConfigError)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _problem("expected a plain word as key, got a list or mapping", key)
            _check_scalar(key)
            if _kind(key) in ("bool", "null", "float"):
                raise _problem(f"YAML reads the key '{_short(key.value)}' as a {_kind(key)}: put it in quotes", key)
            if _word(key) in seen and _kind(key) != "merge":
                raise _problem(f"the key '{_short(key.value)}' stands here twice", key)
            seen.add(_word(key))
            yield from (key, value)
    elif isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.ScalarNode):
        _check_scalar(node)


def _check_scalar(node: yaml.ScalarNode) -> None:
    character = NO_TEXT.search(node.value)
    if character:
        raise _problem(f"the character U+{ord(character[0]):04X} is none of a text", node)
    if _kind(node) not in ("int", "float"):
        return
    if NUMBER_IN_DISGUISE.fullmatch(node.value) and node.value.strip("+-0_"):
        raise _problem(
            f"{_short(node.value)} is no decimal number: write it without leading zeros and colons, or in quotes if "
            "it is text",
            node,
        )
    if _kind(node) == "int":
        number = _integer(node) if len(node.value) < 100 else 1 << 63
        if number is None:
            raise _problem(f"'{_short(node.value)}' is no integer", node)
        if abs(number) >= 1 << 63:
            raise _problem(f"{_short(node.value)} is too large: expected an integer of at most 64 bits", node)


def _integer(node: yaml.ScalarNode) -> int | None:
    try:
        return int(node.value.replace("_", ""), 0)
    except ValueError:
        return None


def _word(key: yaml.ScalarNode) -> str:
    """A key as a dotted key names it: `0x10` and `16` are one."""
    return str(_integer(key)) if _kind(key) == "int" else key.value


def _lines(node: yaml.Node, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield (*path, _word(key)), key.start_mark.line + 1
            yield from _lines(value, (*path, _word(key)))
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, str(index)), item.start_mark.line + 1
            yield from _lines(item, (*path, str(index)))


def _problem(text: str, at: yaml.Node | yaml.Event) -> yaml.MarkedYAMLError:
    mark = at.start_mark
    return yaml.MarkedYAMLError(problem=text, problem_mark=mark if isinstance(mark, yaml.Mark) else None)


def _kind(node: yaml.Node) -> str:
    return node.tag.rpartition(":")[2]


def _short(text: Any) -> str:
    text = text if isinstance(text, str) else repr(text)
    return text if len(text) <= 60 else f"{text[:57]}..."
