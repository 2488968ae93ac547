"""The tables of keys in docs/config.md say what the models check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import Field, TypeAdapter
from pydantic_core import to_jsonable_python

from mdg import registry
from mdg.config import RunConfig, config_page, dump_yaml, load_config
from mdg.config.documentation import (
    MARKER,
    Row,
    key_tables,
    places,
    plain,
    rows_of,
    shipped,
    table,
    type_text,
    yaml_text,
)
from mdg.errors import ConfigError
from mdg.registry import DATASETS, ComponentRegistry, Options, registry_of

ROOT = Path(__file__).resolve().parents[2]
REGISTRIES = [value for value in vars(registry).values() if isinstance(value, ComponentRegistry)]
Side = Annotated[int, Field(ge=1, le=99)]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (bool, "bool"),
        (Path | None, "path or null"),
        (Annotated[int, Field(ge=0)], "int, ≥ 0"),
        (Annotated[float, Field(gt=0, lt=1)] | None, "float or null, > 0, < 1"),
        (Literal["a", "b"] | None, "`a`, `b` or null"),
        (Literal["a"], "`a`"),
        (tuple[Side, Side], "[int, int], each ≥ 1, ≤ 99"),
        (list[tuple[Side, Side]] | None, "list of [int, int] or null, each ≥ 1, ≤ 99"),
        (Annotated[list[str], Field(min_length=2, max_length=9)], "list of str, at least 2, at most 9"),
        (dict[int, int | str] | None, "mapping to int or str, or null"),
        (Annotated[str, Field(pattern="^x$")], "str, like `^x$`"),
    ],
)
def test_type_text(kind, text):
    assert type_text(TypeAdapter(kind).json_schema()) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (1e-4, "0.0001"),
        ("auto", "auto"),
        ("{split}.txt", "'{split}.txt'"),
        ((480, 640), "[480, 640]"),
        (Path("a/b"), "a/b"),
        ({"type": "Dice", "weight": 0.5}, "{type: Dice, weight: 0.5}"),
    ],
)
def test_yaml_text_reads_back(value, text):
    assert yaml_text(value) == text
    assert yaml.safe_load(text) == to_jsonable_python(value)


class Inner(Options):
    """Inner."""

    ratio: float = Field(0.5, gt=0)
    """A share."""


class Outer(Options):
    """Outer."""

    data: registry.component(DATASETS)  # type: ignore[valid-type]
    """A data set."""
    inner: Inner = Inner()
    """A mapping."""
    off: Inner | None = None
    """Nothing."""


def test_rows_of_a_model():
    assert rows_of(Outer, prefix="x.") == [
        Row("`x.data`", "data set", "required", "A data set."),
        Row("`x.inner`", "mapping, keys below", "as below", "A mapping."),
        Row("`x.inner.ratio`", "float, > 0", "`0.5`", "A share."),
        Row("`x.off`", "mapping, keys below, or null", "`null`", "Nothing."),
        Row("`x.off.ratio`", "float, > 0", "`0.5`", "A share."),
    ]


def test_table_escapes_bars():
    lines = table([Row("`a`", "int", "`1`", "|P| of\nall")]).splitlines()
    assert lines[2].count(" | ") == 3 and r"\|P\|" in lines[2]
    assert table([]) == ""


def test_docstring_becomes_markdown():
    assert (
        plain("See :class:`~mdg.data.base.Frame`,\n  ``x`` and docs/model.md")
        == "See `Frame`, `x` and [model.md](model.md)"
    )


def test_registry_of_finds_components_in_lists_and_nowhere_else():
    fields = RunConfig.model_fields
    assert registry_of(fields["loss"]) is registry_of(fields["auxiliary_loss"]) is registry.LOSSES
    assert registry_of(fields["train"]) is None and registry_of(fields["seed"]) is None


def test_every_registry_has_its_place():
    found = places(RunConfig)
    assert set(found) == set(REGISTRIES)
    assert found[registry.BACKBONES] == ["model.backbone", "model.rgb_backbone", "model.thermal_backbone"]


def test_every_option_has_a_meaning():
    models = [registry.options_of(name) for registry in REGISTRIES for name in shipped(registry)]
    rows = [(model.__name__, row) for model in [RunConfig, *models] for row in rows_of(model)]
    assert len(rows) > 200
    assert [(model, row.key) for model, row in rows if not row.meaning and row.key != "`type`"] == [
        ("RunConfig", f"`{name}`") for name in ("train", "eval", "checkpoint", "log", "ops")
    ]


@pytest.mark.parametrize("file", ["mfnet/mdg_b2", "pst900/mdg_b2", "fmb/mdg_b2", "folder/example", "demo"])
def test_every_key_of_a_resolved_run_is_in_a_table(file):
    keys = {line.split("`")[1] for line in key_tables().splitlines() if line.startswith("| `")}
    config = yaml.safe_load(dump_yaml(load_config(ROOT / "configs" / f"{file}.yaml")))
    missing = [key for key in _keys(config) if not keys.intersection({key, *_tails(key)})]
    assert not missing


def _keys(node, prefix=""):
    if isinstance(node, list):
        return [key for item in node for key in _keys(item, prefix)]
    if not isinstance(node, dict) or prefix in ("data.label_map.", "data.conditions."):
        return [] if not prefix else [prefix[:-1]]
    return [key for name, value in node.items() if name != "type" for key in _keys(value, f"{prefix}{name}.")]


def _tails(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[first:]) for first in range(1, len(parts))]


def test_keys_that_components_share_stand_once_and_changed_ones_again():
    text = key_tables().partition("### `data`")[2].partition("### ")[0]
    assert text.count("| `cache_dir` |") == text.count("| `thermal_scaling.mode` |") == 1
    assert "| `val_split` | str or null | `val` |" in text and "| `val_split` | str or null | `null` |" in text


def test_page_keeps_what_is_written_by_hand():
    page = config_page(f"# Title\n\n{MARKER}\n\nold")
    assert page.startswith(f"# Title\n\n{MARKER}\n\n### The run") and "old" not in page.splitlines()
    assert config_page(page) == page
    with pytest.raises(ConfigError, match="put it back"):
        config_page("# Title")
