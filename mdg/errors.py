"""Errors that are the user's to mend, and how they name a choice: by its key, or by its flag where there is no
configuration to edit. Command-line tools print them as one message, never as a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class UserError(ValueError):
    """Something the user can put right; the message says what was got, what was expected and what to do.

    ``exit_code`` is that of a command-line tool which ends with it; docs/reliability.md lists all codes.
    """

    exit_code = 2


class ConfigError(UserError):
    """A configuration file, a ``--opts`` override or a combination of settings that cannot be run."""


class DataError(UserError):
    """A data set that is missing, incomplete or not in the expected format."""


class WeightsError(UserError):
    """A checkpoint or a file of pretrained weights that is missing or does not fit the model."""


class MachineError(UserError):
    """The machine cannot do what was asked: a full disk, too little memory, a process that was lost."""

    exit_code = 3


class NonFiniteError(UserError):
    """Numbers that are not finite, in a loss, in gradients, in weights or in logits."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence naming the known name closest to ``name``; empty where nothing is close."""
    match = difflib.get_close_matches(str(name), list(known), n=1, cutoff=0.5)
    return f" Did you mean '{match[0]}'?" if match else ""


def first_few(names: Sequence[object], limit: int = 5, separator: str = ", ") -> str:
    """The first ``limit`` of what a message names, and how many more there are; "none" where there is nothing."""
    shown = separator.join(map(str, names[:limit])) or "none"
    joint = " " if separator == ", " else separator
    return shown + (f"{joint}and {len(names) - limit} more" if len(names) > limit else "")


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
    "if it is thermal, as in MFNet, give such files as data.rgb and data.thermal both (`type: MFNet` does)",
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
