"""Robustness of runs as a function: what ``tools/robustness.py`` calls."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from mdg.data.corruptions import Corruption
from mdg.engine.evaluation.evaluator import require_split
from mdg.engine.robustness.cells import Task
from mdg.engine.robustness.measure import Subject, checkpoint_of, open_subjects, session
from mdg.engine.robustness.page import make_page
from mdg.engine.robustness.pictures import Painter
from mdg.engine.robustness.plan import SEVERITIES, befalling, chosen_corruptions, chosen_severities
from mdg.engine.robustness.results import Measured, Robustness, as_tree, shown_severities
from mdg.engine.robustness.tables import as_markdown, print_robustness
from mdg.errors import ConfigError
from mdg.utils.environment import describe_environment
from mdg.utils.files import require_writable, write_json, write_text
from mdg.utils.logging import console, setup_logging
from mdg.utils.progress import Progress

logger = logging.getLogger("mdg.robustness")
JSON, MARKDOWN, PAGE = "robustness.json", "table.md", "robustness.html"


def robustness(
    runs: Sequence[str | Path],
    *,
    split: str = "test",
    corruptions: Sequence[str] | None = None,
    severities: Sequence[float] = SEVERITIES,
    seed: int = 0,
    reference: str | Path | None = None,
    frames: int | None = None,
    scene: str | None = None,
    out: str | Path | None = None,
    json_file: str | Path | None = None,
    config: str | Path | None = None,
    opts: Sequence[str] = (),
) -> Robustness:
    """Scores runs under corruptions and writes ``robustness.json``, ``table.md`` and ``robustness.html``.

    Every cell (a run, a corruption, a severity) is kept as soon as it is measured. The same call goes on where it was
    broken off, and what was measured in the same setting is never measured again.

    Args:
        runs: Run directories (their best checkpoint, else the last) or checkpoints.
        split: "train", "val" or "test".
        corruptions: As for :func:`mdg.engine.robustness.plan.chosen_corruptions`; None takes all.
        severities: Above 0, up to 5.
        seed: Of the corruptions.
        reference: One of ``runs``, against whose errors those of all are given.
        frames: Score only so many frames of the split, from its beginning (``data.limit``).
        scene: Frame to show; None takes one with many classes.
        out: Folder; None takes ``robustness/<split>`` in the first run.
        json_file: Write ``robustness.json`` there too.
        config: A YAML for all runs; None takes the configuration inside each checkpoint.
        opts: Overrides of it, such as ``eval.objects=true``.

    Raises:
        UserError: A name, severity, run, checkpoint or data set that cannot be used, or a place that cannot be written;
            found before anything is scored.
        NonFiniteError: Weights or logits that are not finite.
    """
    require_split(split)
    chosen, levels = chosen_corruptions(corruptions), chosen_severities(severities)
    _require_one_process()
    folder = Path(out) if out is not None else _place_in(runs, split)
    opts = [*opts, *([f"data.limit={frames}"] if frames is not None else [])]
    place = _place_of(reference, runs)
    setup_logging()
    subjects = open_subjects(runs, config, opts, split, seed, folder)
    chosen = befalling(chosen, subjects[0].dataset)
    _require_places(folder, json_file, subjects)
    _require_earlier(chosen, levels, len(subjects[0].dataset))
    painter = Painter(subjects[0], chosen, shown_severities(levels), seed, scene)
    tasks = [Task(None, 0.0), *[Task(corruption, level) for corruption in chosen for level in levels]]
    _measure(subjects, tasks, seed, painter)
    found = Robustness([_read(subject, tasks) for subject in subjects], chosen, levels, seed, place)
    tree = as_tree(found, describe_environment())
    # Everything is written before anything is printed: the reader of the output may have gone.
    write_json(folder / JSON, tree)
    if json_file is not None:
        write_json(json_file, tree)
    write_text(folder / MARKDOWN, as_markdown(found))
    write_text(folder / PAGE, make_page(found, painter.finish(), tree["environment"]))
    print_robustness(found, console)
    console.print(f"results: {folder / JSON}; tables: {folder / MARKDOWN}; page: {folder / PAGE}", soft_wrap=True)
    return found


def _measure(subjects: Sequence[Subject], tasks: Sequence[Task], seed: int, painter: Painter) -> None:
    """Measures what is missing, network by network, and has every one of them paint the scene."""
    missing = {subject.name: [task for task in tasks if subject.store.read(task) is None] for subject in subjects}
    count, whole = sum(map(len, missing.values())), len(subjects) * len(tasks)
    if count < whole:
        logger.info("%d of %d scores are there already", whole - count, whole)
    with Progress(count * len(subjects[0].dataset), "images", "robustness") as progress:
        for subject in subjects:
            with session(subject) as loaded:
                for task in missing[subject.name]:
                    cell = loaded.measure(task, seed, _counting(progress))
                    subject.store.write(task, cell)
                painter.add(loaded)


def _counting(progress: Progress) -> Callable[[int], None]:
    before = progress.done
    return lambda images: progress.advance(before + images - progress.done)


def _read(subject: Subject, tasks: Sequence[Task]) -> Measured:
    cells: dict[str, dict[float, dict]] = {}
    clean: dict = {}
    for task in tasks:
        cell = subject.store.read(task)
        if cell is None:
            raise ConfigError(
                f"{subject.store.folder / task.file_name}: gone or changed while the tool ran; start it again, which "
                "measures what is missing"
            )
        if task.corruption is None:
            clean = cell
        else:
            cells.setdefault(task.corruption.name, {})[task.severity] = cell
    sha256 = subject.store.setting["checkpoint_sha256"]
    return Measured(subject.name, str(subject.file), sha256, subject.store.digest, clean, cells)


def _place_in(runs: Sequence[str | Path], split: str) -> Path:
    """``robustness/<split>`` in the run of the first checkpoint, or beside a checkpoint that is in none."""
    if not runs:
        raise ConfigError("no run is named; name run directories or checkpoints")
    file = checkpoint_of(Path(runs[0]))
    run = file.parent.parent if file.parent.name == "checkpoints" else file.parent
    return run / "robustness" / split


def _place_of(reference: str | Path | None, runs: Sequence[str | Path]) -> int | None:
    """The place of the reference among the runs.

    Raises:
        ConfigError: It is none of them.
    """
    if reference is None:
        return None
    wanted = Path(reference).resolve()
    for place, run in enumerate(runs):
        named = Path(run).resolve()
        if wanted == named or (named.exists() and wanted == checkpoint_of(named)):
            return place
    raise ConfigError(
        f"--reference {reference}: expected one of the runs that are measured ({', '.join(map(str, runs))}); name it "
        "among them too"
    )


def _require_earlier(corruptions: Sequence[Corruption], severities: Sequence[float], frames: int) -> None:
    """Before the first frame of a split come its last ones, so that in a short one an earlier frame may be the same."""
    for corruption in filter(lambda one: one.needs_previous, corruptions):
        for severity in severities:
            age = round(corruption.strength(severity))
            if age and age % frames == 0:
                raise ConfigError(
                    f"{corruption.name} at severity {severity:g} shows the frame {age} places earlier, which in a "
                    f"split of {frames} is the same one: score more than {age} frames, or leave it out, as with "
                    "--corruptions light weather lens sensor rig MissingBlack MissingMean"
                )


def _require_one_process() -> None:
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ConfigError(
            "robustness is measured by one process, got several from a launcher; start it without one, and divide the "
            "runs or --corruptions among commands with one --out"
        )


def _require_places(folder: Path, json_file: str | Path | None, subjects: Sequence[Subject]) -> None:
    for name in (JSON, MARKDOWN, PAGE):
        require_writable(folder / name, "--out")
    if json_file is not None:
        require_writable(json_file, "--json")
        if Path(json_file).resolve() in {subject.file.resolve() for subject in subjects}:
            raise ConfigError(f"--json {json_file}: this is a checkpoint; name another file")
