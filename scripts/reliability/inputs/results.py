"""results.json files for tools/compare.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from reliability.inputs.kit import Bad, Kit

WHAT = "results.json"
TEXTS: dict[str, str | bytes] = {
    "empty": "",
    "half": '{"format": 2, "rules": {',
    "null": "null",
    "number": "3",
    "list": "[]",
    "mapping": "{}",
    "nan": "NaN",
    "deep-list": "[" * 100_000,
    "deep-mapping": '{"a":' * 100_000,
    "long-number": "9" * 100_000,
    "huge-exponent": '{"format": 1e999999}',
    "not-utf-8": b'{"format": "\xff"}',
    "utf-16": '{"format": 2}'.encode("utf-16"),
    "utf-8-with-mark": '{"format": 2}'.encode("utf-8-sig"),
    "nul": '{"format": 2}\0',
    "surrogate": '{"format": "\\ud800"}',
    "html": "<html></html>",
    "format-1": '{"format": 1}',
    "format-99": '{"format": 99}',
    "format-text": '{"format": "2"}',
    "format-true": '{"format": true}',
}
OPTIONAL = {"honest", "changes"}  # follows from others; is younger than the format
VALUES: dict[str, Any] = {"none": None, "int": 3, "text": "x", "list": [1], "nested": {"x": {"y": [1]}}, "absent": ...}


def bad_inputs(kit: Kit) -> Iterator[Bad]:
    """Texts that are no results, and results with one field absent or of the wrong kind."""
    for name, text in TEXTS.items():
        yield Bad(f"text-{name}", partial(_write, text))
    content = json.loads((kit.run / "results" / "test" / "results.json").read_text())
    for key, value in content.items():
        for what, odd in VALUES.items():
            if _matters(key) and type(odd) is not type(value):
                yield Bad(f"{key}-{what}", partial(_write, partial(_replaced, content, key, odd)))
    for key in sorted(content["protocol"].keys() - OPTIONAL):
        yield Bad(f"protocol.{key}-absent", partial(_write, partial(_inside, content, "protocol", key, ...)))
    for key in ("checkpoint_sha256", "seed"):
        yield Bad(f"{key}-mapping", partial(_write, partial(_replaced, content, key, {"a": 1})))


def _matters(key: str) -> bool:
    """Fields that a comparison reads; others are for people."""
    return key in (
        "format",
        "protocol",
        "rules",
        "scores",
        "groups",
        "per_class",
        "config",
        "checkpoint_sha256",
        "seed",
    )


def _replaced(content: dict, key: str, value: Any) -> str:
    rest = {name: old for name, old in content.items() if name != key}
    return json.dumps(rest if value is ... else {**rest, key: value})


def _inside(content: dict, outer: str, key: str, value: Any) -> str:
    return _replaced(content, outer, json.loads(_replaced(content[outer], key, value)))


def _write(text: str | bytes | Callable[[], str], kit: Kit, folder: Path) -> tuple[str, list]:
    text = text() if callable(text) else text
    file = folder / "results.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return "tools/compare.py", [file]
