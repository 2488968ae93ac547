"""From the options of a data set to the report on it.

Frames are inspected side by side, with results in order and few of them waiting. Threads rather than processes:
decoding, counting levels and hashing all run without the interpreter lock, nothing has to be copied between processes,
and a data set need not be picklable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
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
from mdg.utils.cores import usable_cores
from mdg.utils.files import require_writable
from mdg.utils.logging import console
from mdg.utils.progress import Progress
from mdg.utils.run_directory import fresh_path
from mdg.utils.threads import in_order


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
    report = inspect_dataset(options, workers or usable_cores(), config)
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
    with one_thread_each(), Progress(sum(map(len, datasets)), "frames") as progress:
        for dataset in datasets:
            split = report.splits[dataset.split] = SplitReport(dataset)
            for frame in in_order(Inspector(dataset), range(len(dataset)), workers):
                split.add(frame)
                progress.advance()
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
def one_thread_each() -> Iterator[None]:
    """OpenCV with one thread per call, as the workers are many, and silent about files that the report names."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with quiet_opencv():
            yield
    finally:
        cv2.setNumThreads(threads)
