"""Frames that are the same: within a split a waste, between two splits a leak.

Content is compared by digests of decoded pixels, so a renamed or differently compressed copy is found; one that was
resized, or compressed with loss, is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mdg.data.check.findings import NAMES, Finding
from mdg.data.check.splits import FrameRecord

IMAGES = ("rgb", "thermal")
Key = tuple[str, object]  # what is compared, and its value


def find_leaks(
    role: str, records: Sequence[FrameRecord], other_role: str, others: Sequence[FrameRecord]
) -> list[Finding]:
    """Frames of one split that another holds too: by identity, by the content of RGB or of thermal, also mirrored."""
    known = _index(records, identities=True)
    findings = []
    for record in others:
        for place, reasons in _matches(known, record, mirrored=True):
            first = records[place]
            message = f"{role} {first.name} and {other_role} {record.name}: {', '.join(reasons)}{_where(first, record)}"
            findings.append(_finding("leak", f"{role}, {other_role}", message, first, record))
    return findings


def find_duplicates(role: str, records: Sequence[FrameRecord]) -> list[Finding]:
    """Frames with the content of an earlier frame of the split. Mirror images do not count: MFNet's ``_flip`` frames
    are meant to be there."""
    known = _index(records, identities=False)
    findings = []
    for place, record in enumerate(records):
        for earlier, reasons in _matches(known, record, mirrored=False):
            if earlier < place:
                first = records[earlier]
                message = f"{first.name} and {record.name}: {', '.join([*reasons, *_labels(first, record)])}"
                findings.append(_finding("duplicate", role, message + _where(first, record), first, record))
    return findings


def _index(records: Sequence[FrameRecord], identities: bool) -> dict[Key, int]:
    # Only the first frame of equal ones is listed: a thousand copies are a thousand findings, not a million.
    known: dict[Key, int] = {}
    for place, record in enumerate(records):
        keys: list[Key] = [(part, record.digests[part].straight) for part in IMAGES if part in record.digests]
        for key in [*keys, *([("name", record.identity)] if identities else [])]:
            known.setdefault(key, place)
    return known


def _matches(known: dict[Key, int], record: FrameRecord, mirrored: bool) -> Iterator[tuple[int, list[str]]]:
    reasons: dict[int, list[str]] = {}
    keys = [("same scene by name", ("name", record.identity))]
    for part in [part for part in IMAGES if part in record.digests]:
        digest = record.digests[part]
        keys.append((f"same {NAMES[part]}", (part, digest.straight)))
        if mirrored and digest.mirrored != digest.straight:
            keys.append((f"same {NAMES[part]}, mirrored", (part, digest.mirrored)))
    for reason, key in keys:
        if key in known:
            reasons.setdefault(known[key], []).append(reason)
    yield from sorted(reasons.items())


def _labels(first: FrameRecord, second: FrameRecord) -> list[str]:
    digests = [record.digests.get("label") for record in (first, second)]
    if None in digests:
        return []
    return ["same label" if digests[0] == digests[1] else "but different labels"]


def _where(first: FrameRecord, second: FrameRecord) -> str:
    files = [record.files[0] for record in (first, second) if record.files]
    return f" ({' and '.join(dict.fromkeys(files))})" if files else ""


def _finding(kind: str, split: str, message: str, first: FrameRecord, second: FrameRecord) -> Finding:
    files = tuple(dict.fromkeys([*first.files, *second.files]))
    return Finding(kind, split, message, (first.name, second.name), files)
