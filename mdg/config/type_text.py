"""Types, ranges and defaults of options in words, for tables of keys."""

from __future__ import annotations

from typing import Any

import yaml
from pydantic_core import to_jsonable_python

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
