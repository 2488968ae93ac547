"""From the options of a data set to the report on it.

Frames are inspected side by side, with results in order and few of them waiting. Threads rather than processes:
decoding, counting levels and hashing all run without the interpreter lock, nothing has to be copied between processes,
and a data set need not be picklable.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import cv2
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from mdg.data.base import ROLES, RGBTDataset
from mdg.data.check.findings import Finding
from mdg.data.check.frames import Inspector
from mdg.data.check.output import print_report, write_document
from mdg.data.check.page import write_page
from mdg.data.check.report import DataReport
from mdg.data.check.splits import SplitReport
from mdg.data.datasets.file_dataset import FileDataset
from mdg.data.reading.images import quiet_opencv
from mdg.errors import DataError
from mdg.registry import DATASETS
from mdg.utils.files import require_writable
from mdg.utils.logging import console
from mdg.utils.run_directory import fresh_path

T = TypeVar("T")
AHEAD = 4  # results per worker that may wait for their turn


def check_data(
    options: Any,
    *,
    config: str = "",
    workers: int | None = None,
    html: str | Path | None = None,
    json_file: str | Path | None = None,
) -> bool:
    """Reads every file of a data set, prints what is wrong and writes it where that is wanted.

    Args:
        options: Typed options of a data set, as in ``config.data``.
        config: Name of the configuration, for the report.
        workers: Frames inspected at once; None takes one per processor.
        html, json_file: Files to write. Nothing is overwritten: where one exists, another name is taken and printed.

    Returns:
        Whether nothing is wrong; warnings are allowed.

    Raises:
        UserError: Unknown type of data set, or a file that cannot be written there.
    """
    targets = {kind: Path(file) for kind, file in (("--html", html), ("--json", json_file)) if file is not None}
    for option, file in targets.items():
        require_writable(file, option)
    report = inspect_dataset(options, workers or default_workers(), config)
    written = {option: fresh_path(file) for option, file in targets.items()}
    for option, file in written.items():  # before anything is printed: the reader of the output may have gone
        (write_page if option == "--html" else write_document)(file, report)
    print_report(report, console)
    for file in written.values():
        console.print(Text(f"written: {file}"))
    return not report.count(problems=True)


def inspect_dataset(options: Any, workers: int, config: str = "") -> DataReport:
    """Reads every frame of every split that has a role.

    Args:
        options: Typed options of a data set, as in ``config.data``.
        workers: Frames inspected at once; the report does not depend on it.
        config: Name of the configuration, for the report.

    Raises:
        ConfigError: Unknown type of data set. Nothing that is wrong with the data raises.
    """
    report = DataReport(getattr(options, "name", None) or options.type, config)
    datasets = _open_splits(options, report)
    with one_thread_each(), _progress(sum(map(len, datasets))) as advance:
        for dataset in datasets:
            split = report.splits[dataset.split] = SplitReport(dataset)
            for frame in in_order(Inspector(dataset), len(dataset), workers):
                split.add(frame)
                advance(dataset.split)
    report.finish()
    return report


def _open_splits(options: Any, report: DataReport) -> list[RGBTDataset]:
    datasets: list[RGBTDataset] = []
    closed: dict[str, list[str]] = {}  # roles by the reason why they cannot be opened: often one for all
    for role in ROLES:
        held_out = role == "val" and getattr(options, "holdout", None) is not None
        if getattr(options, f"{role}_split", role) is None and not held_out:
            report.notes.append(f"no {role} split: data.{role}_split is null")
            continue
        try:
            dataset = DATASETS.create(options, role=role)
        except DataError as error:
            closed.setdefault(str(error), []).append(role)
            continue
        report.name = dataset.dataset_name
        if isinstance(dataset, FileDataset):
            report.root = str(dataset.root)
        datasets.append(dataset)
    report.findings += [Finding("split", ", ".join(roles), reason) for reason, roles in closed.items()]
    limits = {dataset.limit for dataset in datasets} - {None}
    if limits:
        report.notes.append(f"data.limit is {limits.pop()}: frames beyond it were not read")
    return datasets


@contextmanager
def _progress(frames: int) -> Iterator[Any]:
    columns = [TextColumn("{task.description:5}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=frames)
        yield lambda role: bar.update(task, advance=1, description=role)


def default_workers() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(work: Callable[[int], T], count: int, workers: int) -> Iterator[T]:
    """``work(0)``, ``work(1)``, ... ``work(count - 1)``, in that order whatever the number of workers.

    Where the caller stops early (Ctrl-C), what has begun is finished and nothing else is begun.
    """
    if workers == 1:
        yield from map(work, range(count))
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for index in range(count):
                waiting.append(pool.submit(work, index))
                if len(waiting) >= AHEAD * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def one_thread_each() -> Iterator[None]:
    """OpenCV with one thread per call, as the workers are many, and silent about files that the report names."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with quiet_opencv():
            yield
    finally:
        cv2.setNumThreads(threads)
