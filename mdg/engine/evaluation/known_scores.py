"""Scores of given weights, wherever they are told: by the results in their run, or by the file that was passed on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mdg.data.base import ROLES
from mdg.engine.evaluation.result_files import FILE, Result, read_result
from mdg.errors import ConfigError, DataError
from mdg.metrics import Protocol
from mdg.utils.files import file_sha256

ORDER = tuple(reversed(ROLES))  # tests first: what is read at the top is what honest tests say


class KnownScore(NamedTuple):
    """mIoU in per cent under a protocol; None where nothing counts."""

    protocol: Protocol
    miou: float | None

    @property
    def text(self) -> str:
        """ "61.70", or "n/a"."""
        return "n/a" if self.miou is None else f"{self.miou:.2f}"


def known_scores(state: Mapping[str, Any], checkpoint: Path) -> list[KnownScore]:
    """The newest score of these very weights under every protocol, tests first.

    Args:
        state: What :func:`~mdg.engine.checkpoint.load_checkpoint` read; exported weights have scores inside.
        checkpoint: The file; where it lies in a run directory, the results of that count and are the newer ones.
    """
    found: dict[Any, KnownScore] = {}
    for told in state.get("scores") or []:
        try:
            protocol = Protocol.from_dict(told["protocol"], str(checkpoint))
            miou = told["scores"]["mIoU"]
            found[protocol.key()] = KnownScore(protocol, None if miou is None else float(miou))
        except (ConfigError, DataError, KeyError, TypeError, ValueError):  # of another version
            continue
    for result in results_of(checkpoint.resolve().parent.parent, file_sha256(checkpoint)):
        found[result.protocol.key()] = known_score(result)
    return sorted(found.values(), key=lambda score: ORDER.index(score.protocol.role))


def results_of(run: Path | None, sha256: str) -> list[Result]:
    """The newest results of a checkpoint, by its digest, under every protocol in a run directory; tests first."""
    found: dict[Any, Result] = {}
    files = sorted((run / "results").glob(f"*/{FILE}"), key=lambda file: file.stat().st_mtime_ns) if run else []
    for file in files:
        try:
            result = read_result(file)
        except (ConfigError, DataError):  # of another version, or no results
            continue
        if result.checkpoint == sha256:
            found[result.protocol.key()] = result
    return sorted(found.values(), key=lambda result: ORDER.index(result.protocol.role))


def known_score(result: Result) -> KnownScore:
    """The primary score of a result."""
    return KnownScore(result.protocol, result.content["scores"]["mIoU"])
