"""From scores under corruption to the numbers that papers print. Pure arithmetic on scores in per cent.

``P(c, s)`` is the score under corruption c at severity s, ``P`` the clean one, ``E = 100 - P`` its error; a corruption
of two cameras is two. Means over corruptions weigh each alike, however many a group has.

*Benchmarking Robustness in Object Detection* (Michaelis et al. 2019)::

    mPC = mean over c of (mean over s of P(c, s))        mean performance under corruption
    rPC = 100 mPC / P                                    share of the clean score that is retained, per cent

*Benchmarking Neural Network Robustness to Common Corruptions and Perturbations* (Hendrycks and Dietterich, ICLR 2019),
against a reference network::

    CE(c)          = 100 sum over s of E(c, s) / sum over s of E_ref(c, s)
    relative CE(c) = 100 sum over s of (E(c, s) - E) / sum over s of (E_ref(c, s) - E_ref)
    mCE, relative mCE = their means over c

The reference has 100 in both; less is better. A relative error tells nothing of a corruption that costs the reference
nothing: where it loses less than :data:`LEAST` points in the mean over severities, the corruption is left out of the
relative mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mdg.engine.robustness.plan import CAMERAS, GROUPS, group_of

LEAST = 0.1  # points of mIoU
Scores = Mapping[str, Mapping[float, float]]
"""Per cent, by name of the corruption (``Fog of rgb``) and severity."""


@dataclass(frozen=True)
class Retained:
    """What remains of a score, per cent; NaN stays NaN.

    Attributes:
        clean: Without corruption.
        corruptions: Mean over severities, by name.
        groups: Mean over the corruptions of a group, where one was measured.
        cameras: Mean over the corruptions of a camera, likewise.
        mpc: Mean performance under corruption.
        rpc: ``mpc`` in per cent of ``clean``.
    """

    clean: float
    corruptions: dict[str, float]
    groups: dict[str, float]
    cameras: dict[str, float]
    mpc: float
    rpc: float


@dataclass(frozen=True)
class CorruptionErrors:
    """Errors in per cent of those of a reference, by corruption and in the mean.

    Attributes:
        ce: Corruption errors.
        mce: Their mean.
        relative: Relative corruption errors, without those that the reference says nothing about.
        relative_mce: Their mean.
    """

    ce: dict[str, float]
    mce: float
    relative: dict[str, float]
    relative_mce: float


def retained(clean: float, scores: Scores) -> Retained:
    """Summarises scores of one network.

    Args:
        clean: Its score without corruption, per cent.
        scores: Those under corruption.
    """
    means = {name: mean(by_severity.values()) for name, by_severity in scores.items()}
    groups = {
        group: mean(value for name, value in means.items() if group_of(name.partition(" of ")[0]) == group)
        for group in GROUPS
        if any(group_of(name.partition(" of ")[0]) == group for name in means)
    }
    cameras = {
        camera: mean(value for name, value in means.items() if name.endswith(f" of {camera}"))
        for camera in CAMERAS
        if any(name.endswith(f" of {camera}") for name in means)
    }
    mpc = mean(means.values())
    return Retained(clean, means, groups, cameras, mpc, 100 * quotient(mpc, clean))


def corruption_errors(clean: float, scores: Scores, reference_clean: float, reference: Scores) -> CorruptionErrors:
    """Errors against a reference that was measured under the same corruptions and severities."""
    ce, relative = {}, {}
    for name, by_severity in scores.items():
        own = [by_severity[severity] for severity in sorted(by_severity)]
        its = [reference[name][severity] for severity in sorted(by_severity)]
        ce[name] = 100 * quotient(sum(100 - value for value in own), sum(100 - value for value in its))
        lost, its_lost = sum(clean - value for value in own), sum(reference_clean - value for value in its)
        if its_lost >= LEAST * len(its):
            relative[name] = 100 * lost / its_lost
    return CorruptionErrors(ce, mean(ce.values()), relative, mean(relative.values()))


def share_lost(clean: float, corrupted: float) -> float:
    """How much of a share is gone, in per cent of it: 25 where 60 % were found and 45 % are left."""
    return 100 - 100 * quotient(corrupted, clean)


def mean(values: Iterable[float]) -> float:
    """NaN of nothing."""
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan


def quotient(one: float, other: float) -> float:
    """NaN over zero."""
    return one / other if other else math.nan
