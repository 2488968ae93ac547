from __future__ import annotations

import numpy as np
import pytest

from mdg.utils.visualization import drawable, ink, legend, panel


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe 背景", "größe 背景"),
        ("a\tb\nc\0", "a b c "),
        ("x\udcd6\ud800", "x??"),
        ("a" * 300, "a" * 197 + "..."),
        ("", ""),
    ],
)
def test_what_cannot_be_drawn_is_replaced(text, shown):
    assert drawable(text) == shown


def test_letters_leave_ink_and_blanks_none():
    assert ink("行", 2).max() > 0.9 and ink("   ", 2).max() == 0
    assert ink("行人", 2).shape[1] > ink("行", 2).shape[1]


@pytest.mark.parametrize("name", ["背景", "名\udcd6", "a\0b", "\ud800"])
def test_captions_and_legends_take_any_name(name):
    """OpenCV itself would end the process at half a character."""
    picture = np.full((40, 300, 3), 255, np.uint8)
    assert panel([(name, picture)])[:22].min() < 100
    assert legend([name, "b"], np.array([[0, 0, 0], [255, 0, 0]]), 300).min() == 0
