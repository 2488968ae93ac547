"""How messages name things."""

from __future__ import annotations

import pytest

from mdg.errors import first_few


@pytest.mark.parametrize(
    "names, options, expected",
    [
        ([], {}, "none"),
        (["a"], {}, "a"),
        ("abcde", {}, "a, b, c, d, e"),
        ("abcdefg", {}, "a, b, c, d, e and 2 more"),
        ([1, 2, 3], {"limit": 2, "separator": "; "}, "1; 2; and 1 more"),
    ],
)
def test_the_first_few(names, options, expected):
    assert first_few(names, **options) == expected
