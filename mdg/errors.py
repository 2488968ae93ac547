"""Errors that are the user's to mend. Command-line tools print them as one message, never as a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
