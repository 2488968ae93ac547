"""A preparation from beginning to end: look, plan, compare, transfer, report."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mdg.data.prepare.archives import open_source
from mdg.data.prepare.layouts import Layouts, name_of
from mdg.data.prepare.plan import Item, Plan, check_folders, check_places, choose_plan, outstanding
from mdg.data.prepare.report import count_lines, left_lines, published_lines
from mdg.data.prepare.source import AGAIN, FolderSource, Source
from mdg.data.prepare.transfer import Outcome, transfer
from mdg.data.prepare.tree import COPIED
from mdg.data.reading.files import require_room
from mdg.errors import DataError
from mdg.utils.files import remove_partials
from mdg.utils.limits import require_within
from mdg.utils.logging import console

LABELS = ("labels", "label")  # folders in which the loaders read PNGs only, for other formats lose ids


def prepare(
    layouts: Layouts, origins: Sequence[Path], destination: Path, link: bool = False, dry_run: bool = False
) -> None:
    """Puts a data set into the folders its loader expects and prints what came of it.

    Args:
        layouts: The data set.
        origins: Its folder or its archives; only ever read.
        destination: Folder to write to; files that are there already are kept.
        link: Make hard links to the files of folders instead of copies.
        dry_run: Write nothing.

    Raises:
        DataError: An unreadable source, an unknown layout, or files at the destination that differ. MachineError: no
            room.
    """
    origins, destination = (
        [Path(os.path.expanduser(origin)) for origin in origins],
        Path(os.path.expanduser(destination)),
    )
    check_places(origins, destination)
    sources = [_open(origin) for origin in origins]
    plan = choose_plan(layouts.find, sources, layouts.dataset.dataset_name, layouts.expected)
    missing = outstanding(plan.items, destination)
    check_folders(missing, sources, destination)
    _say(f"{layouts.dataset.dataset_name}: {plan.layout}")
    if dry_run:
        there = len(plan.items) - len(missing)
        _say(f"dry run: {len(missing)} files ({_size(missing)}) to transfer, {there} there already")
    else:
        _require_room(missing, destination, link)
        for folder in {destination / item.target.parent for item in plan.items}:
            remove_partials(folder)
        with _progress(missing) as advance:
            outcome = transfer(missing, destination, link, advance, _say)
        _say(_done(plan, missing, outcome))
    _report(layouts, plan, sources, destination)


def _require_room(items: Sequence[Item], destination: Path, link: bool) -> None:
    """Before minutes are spent, not after; and files of archives that are far too large to be images are none."""
    copied = [item for item in items if not (link and item.entry and isinstance(item.entry.source, FolderSource))]
    for item in copied:
        if item.entry is not None:
            require_within("image_bytes", item.size, f"{item.entry.source.origin}: {item.entry.path}", DataError)
    require_room(destination, sum(item.size for item in copied), f"free some space or choose another place, {AGAIN}")


def _open(origin: Path) -> Source:
    if console.is_terminal:
        with console.status(f"listing {origin.name}"):  # minutes for a large .tar.gz
            return open_source(origin)
    return open_source(origin)


def _report(layouts: Layouts, plan: Plan, sources: Sequence[Source], destination: Path) -> None:
    counts = layouts.count(plan, _names_in(plan, destination))
    for line in (
        *count_lines(counts),
        *published_lines(layouts.dataset, counts),
        *plan.notes,
        *left_lines(plan, sources),
    ):
        _say(line)
    root = shlex.quote(f"data.root={destination}")
    _say(f"next: python tools/check_data.py {layouts.config} --opts {root}")


def _names_in(plan: Plan, destination: Path) -> Callable[[str], set[str]]:
    """Names of the files of a folder as it is, or would be, when everything is transferred."""

    def names_in(folder: str) -> set[str]:
        place = destination / folder
        files = [path.name for path in place.iterdir()] if place.is_dir() else []
        files += [item.target.name for item in plan.items if str(item.target.parent) == folder]
        read = (".png",) if place.name.lower() in LABELS else COPIED
        return {name_of(file) for file in files if file.lower().endswith(read)}

    return names_in


def _done(plan: Plan, missing: Sequence[Item], outcome: Outcome) -> str:
    linked = f"{outcome.linked} files linked, " if outcome.linked else ""
    there = len(plan.items) - len(missing)
    return f"{linked}{outcome.copied} files copied ({_size(missing)} in all), {there} there already"


def _size(items: Sequence[Item]) -> str:
    return f"{sum(item.size for item in items) / 1e6:.1f} MB"


def _say(line: str) -> None:
    console.print(line, markup=False, highlight=False)


@contextmanager
def _progress(items: Sequence[Item]) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("transfer", total=sum(item.size for item in items))
        yield lambda size: bar.advance(task, size)
