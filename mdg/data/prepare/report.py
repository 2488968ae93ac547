"""What a preparation ends with: frames and files per split, what is incomplete, what others published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mdg.data.base import RGBTDataset
from mdg.data.prepare.plan import Plan
from mdg.data.prepare.source import Source
from mdg.errors import first_few

Files = Mapping[str, set[str]]  # folder -> names without suffix


@dataclass(frozen=True)
class SplitCount:
    """A split as it will lie at the destination.

    Attributes:
        split: Its name.
        frames: Number of frames.
        folders: Number of files for these frames by folder.
        incomplete: Frames that lack files, with the folders that lack them.
    """

    split: str
    frames: int
    folders: dict[str, int]
    incomplete: dict[str, list[str]]


def count_split(
    split: str,
    names: Iterable[str],
    necessary: Files,
    optional: Files | None = None,
    has: Callable[[set[str], str], bool] = set.__contains__,
) -> SplitCount:
    """Counts one split.

    Args:
        split: Its name.
        names: Its frames.
        necessary, optional: Files by folder; only a necessary one makes a frame incomplete.
        has: Whether the files of a folder serve a frame.
    """
    names = list(names)
    folders = {folder: sum(has(files, name) for name in names) for folder, files in necessary.items()}
    folders |= {folder: len(files) for folder, files in (optional or {}).items() if files}
    lacking = {name: [folder for folder, files in necessary.items() if not has(files, name)] for name in names}
    return SplitCount(split, len(names), folders, {name: folders for name, folders in lacking.items() if folders})


def count_lines(counts: Sequence[SplitCount]) -> list[str]:
    """A table of splits and folders, and below it the frames that lack files."""
    folders = list(dict.fromkeys(folder for count in counts for folder in count.folders))
    rows = [["split", "frames", *folders]]
    rows += [[c.split, str(c.frames), *(str(c.folders.get(folder, 0)) for folder in folders)] for c in counts]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    for count in counts:
        names = [f"{name} (no {', '.join(folders)})" for name, folders in count.incomplete.items()]
        if names:
            lines.append(f"incomplete in {count.split}: {len(names)} of {count.frames} frames: {first_few(names)}")
    return lines


def published_lines(dataset: type[RGBTDataset], counts: Sequence[SplitCount]) -> list[str]:
    """How the counts compare with published ones: said where they differ, or where published ones differ themselves."""
    published = dataset.published_frames
    frames = {count.split: count.frames for count in counts}
    yours = {split: frames.get(split, 0) for split in published[0]}
    if yours in published and len(published) == 1:
        return []
    verdict = "published counts differ"
    if yours not in published:
        verdict = "published are others (no error, but scores compare on equal splits only)"
    known = " or ".join(_slashed(numbers) for numbers in published)
    return [f"counts of {dataset.dataset_name} ({'/'.join(yours)}): {_slashed(yours)}; {verdict}: {known}"]


def left_lines(plan: Plan, sources: Sequence[Source]) -> list[str]:
    """Files of the sources that were not taken, by folder."""
    taken = {item.entry for item in plan.items}
    left: Counter[str] = Counter()
    for entry in (entry for source in sources for entry in source.entries if entry not in taken):
        inside = len(entry.path.parts) > 1
        left[f"{entry.path.parent}/" if inside else entry.path.name] += 1
    lines = []
    if left:
        places = [f"{place} ({count})" if place.endswith("/") else place for place, count in left.items()]
        lines.append(f"left where they are: {sum(left.values())} files: {first_few(places)}")
    refused = [name for source in sources for name in source.refused]
    if refused:
        shown = first_few([*map(repr, refused)])
        why = "links, or names that lead outside the archive or hold control characters"
        lines.append(f"not taken, {why}: {len(refused)}: {shown}")
    return lines


def _slashed(numbers: Mapping[str, int]) -> str:
    return "/".join(map(str, numbers.values()))
