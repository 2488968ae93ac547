"""How messages name a choice: by its key in a configuration, or by its flag where there is no configuration to edit."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Wording(NamedTuple):
    """Where the reader of a message says what he wants.

    Attributes:
        option: Spells an option of :class:`FileOptions` with a value.
        four_channels: What to do with one image of four channels that was given as RGB.
        no_fourth: What to do where an image of four channels was expected.
    """

    option: Callable[[str, str], str]
    four_channels: str
    no_fourth: str


KEYS = Wording(
    lambda key, value: f"data.{key}: {value}",
    "if it is thermal, as in MFNet, `type: MFNet` reads such PNGs",
    "the thermal channel was lost, for instance by a program that dropped it as transparency. Take the original file",
)
FLAGS = Wording(
    lambda key, value: f"--{key.replace('_', '-')} {_quoted(value)}",
    "if it is thermal, as in MFNet, leave --thermal out",
    "without --thermal an image must hold thermal as its fourth channel. Name the thermal image, or the folder of "
    "them, with --thermal",
)


def _quoted(value: str) -> str:
    return f"'{value}'" if " " in value else value
