"""Readers have limits, and every limit can be raised."""

from __future__ import annotations

import pytest

from mdg.errors import ConfigError, DataError
from mdg.utils.limits import LIMITS, limit, raise_limit, require_within


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_holds_until_it_is_raised(monkeypatch, name):
    monkeypatch.delenv(f"MDG_LIMIT_{name.upper()}", raising=False)
    most = LIMITS[name].default
    assert limit(name) == most
    require_within(name, most, "file")
    with pytest.raises(DataError, match=rf"^file: got .* expected at most {most:,}; .*--limit {name}={most + 1} "):
        require_within(name, most + 1, "file", DataError)
    monkeypatch.setenv(f"MDG_LIMIT_{name.upper()}", str(most))  # restored afterwards
    raise_limit(f"{name}={most + 1}")
    require_within(name, most + 1, "file", DataError)


@pytest.mark.parametrize("text", ["image_pixels", "image_pixels=", "image_pixels=-1", "image_pixels=1e9", "x=5", "=5",
                                  "yaml_bytes=²", f"yaml_bytes={'9' * 5000}"])  # fmt: skip
def test_nonsense_is_refused(text):
    with pytest.raises(ConfigError, match="expected"):
        raise_limit(text)
