"""What a study is: rows (configurations) x splits x seeds, each of which is one run in a folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from mdg.config import RunConfig, load_config
from mdg.config.load import differences, flatten, read_options
from mdg.config.schema import RunName
from mdg.errors import ConfigError
from mdg.fields import Seed, UserPath
from mdg.registry import Options
from mdg.utils.run_directory import RunDirectory

CHANGEABLE = ("name", "exp_dir", "device", "threads")  # of a run that was begun, without another result
Score = Literal["train", "val", "test"]


class RowOptions(Options):
    """A configuration of a study."""

    name: RunName
    """Name of the row in tables."""
    config: UserPath | None = None
    """YAML of its runs, seen from where the study is started; null takes that of the study."""
    opts: list[str] = []
    """Overrides, behind those of the study and of the split."""
    seeds: list[Seed] | None = Field(None, min_length=1)
    """Seeds of this row; null takes those of the study."""


class StudyOptions(Options):
    """A study: every row with every split and seed."""

    name: RunName
    """Name of the study."""
    folder: UserPath | None = None
    """Where its runs are kept; null takes `exp/studies/NAME`."""
    config: UserPath | None = None
    """YAML of the runs of every row that names none."""
    seeds: list[Seed] = Field([3407], min_length=1)
    """Seeds of every row."""
    splits: dict[str, list[str]] = {}
    """Overrides that name the splits, by a name of their own: every row runs once on each; empty runs once as it is."""
    opts: list[str] = []
    """Overrides of all runs."""
    score: list[Score] = Field(["val"], min_length=1)
    """Splits on which the best checkpoint of every run is scored."""
    variants: dict[str, list[str]] = {}
    """Overrides by the name of a variant, to choose a hyper-parameter: every row becomes one row per variant, `ROW,
    VARIANT`; empty leaves the rows as they are."""
    rows: list[RowOptions] = Field(min_length=1)
    """Configurations; the others are compared with the first."""

    @field_validator("rows")
    @classmethod
    def _names_differ(cls, rows: list[RowOptions]) -> list[RowOptions]:
        folders = [folder_name(row.name) for row in rows]
        twice = sorted({name for name in folders if folders.count(name) > 1})
        if twice:
            raise ValueError(f"got {', '.join(twice)} twice, expected names that differ, also in lower case")
        return rows

    @model_validator(mode="after")
    def _every_row_has_a_config(self) -> StudyOptions:
        without = [row.name for row in self.rows if row.config is None]
        if without and self.config is None:
            raise ValueError(
                f"row '{without[0]}' has no config: name one there, or `config:` of the study for all rows"
            )
        return self

    def every_row(self) -> list[RowOptions]:
        """The rows, with every variant of each."""
        if not self.variants:
            return self.rows
        return [
            row.model_copy(update={"name": f"{row.name}, {variant}", "opts": [*row.opts, *opts]})
            for row in self.rows
            for variant, opts in self.variants.items()
        ]


def folder_name(name: str) -> str:
    """The name of a row as that of a folder."""
    return name.lower().replace(",", "").replace(" ", "-")


@dataclass(frozen=True)
class Job:
    """One run of a study: training, then scoring.

    Attributes:
        row: Name of its row.
        split: Name of its split; empty where the study has none.
        seed: Seed of the run.
        config: YAML of the run.
        opts: All overrides.
        folder: Its run directory.
        score: Splits to score.
    """

    row: str
    split: str
    seed: int
    config: Path
    opts: tuple[str, ...]
    folder: Path
    score: tuple[str, ...]

    @property
    def title(self) -> str:
        """ "MDG-B0, r0, seed 1"."""
        return ", ".join(filter(None, [self.row, self.split, f"seed {self.seed}"]))

    @property
    def run(self) -> RunDirectory:
        """The run directory."""
        return RunDirectory(self.folder)

    @property
    def log(self) -> Path:
        """What its processes print, beside its folder."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def results(self, split: str) -> Path:
        """The scores of a split."""
        return self.folder / "results" / split / "results.json"

    def has(self, split: str) -> bool:
        """Whether the scores of a split are there."""
        return self.results(split).is_file()

    @property
    def scored(self) -> bool:
        """Whether nothing is left to do."""
        return all(map(self.has, self.score))

    def resolved(self) -> RunConfig:
        """The configuration of the run; raises ConfigError."""
        return load_config(self.config, self.opts)


@dataclass(frozen=True)
class Study:
    """The jobs of a study, in the order in which they run: every row with its first split and seed, then the next, so
    that a table of all rows exists early."""

    name: str
    folder: Path
    score: tuple[str, ...]
    rows: tuple[str, ...]
    jobs: tuple[Job, ...]

    def of(self, row: str) -> list[Job]:
        """The jobs of a row."""
        return [job for job in self.jobs if job.row == row]


def read_study(file: str | Path) -> Study:
    """Reads a study and checks the configuration of every run of it.

    Raises:
        ConfigError: A mistake in the file or in the configuration of a row, or a run in the study's folder that was
            made of another one; names it.
    """
    options = read_options(file, StudyOptions)
    folder = options.folder or Path("exp") / "studies" / folder_name(options.name)
    rounds = list(_rounds(options, folder))
    names = tuple(row.name for row in options.every_row())
    study = Study(options.name, folder, tuple(options.score), names, tuple(rounds))
    for job in study.jobs:
        _check(job, file)
    return study


def _rounds(options: StudyOptions, folder: Path) -> Iterator[Job]:
    rows = options.every_row()
    most = max(len(row.seeds or options.seeds) for row in rows)
    for place in range(most):
        for split, split_opts in (options.splits or {"": []}).items():
            for row in rows:
                seeds = row.seeds or options.seeds
                if place < len(seeds):
                    seed = seeds[place]
                    opts = [f"name={row.name}", f"seed={seed}", *options.opts, *split_opts, *row.opts]
                    place_of_run = folder / folder_name(row.name) / "-".join(filter(None, [split, f"seed{seed}"]))
                    config = row.config or options.config
                    assert config is not None  # checked where the file is read
                    yield Job(row.name, split, seed, config, tuple(opts), place_of_run, tuple(options.score))


def _check(job: Job, file: str | Path) -> None:
    try:
        config = job.resolved()
    except ConfigError as error:
        raise ConfigError(f"{file}: {job.title}: {error}") from None
    if config.seed != job.seed:
        raise ConfigError(f"{file}: {job.title}: an override sets seed={config.seed}; expected seeds under `seeds:`")
    if job.run.config.is_file():
        require_configuration(config, job.run.config, f"{file}: {job.title}")


def require_configuration(wanted: RunConfig, file: Path, where: str) -> None:
    """Raises ConfigError, which begins with ``where``, unless the configuration of a run is the one of its job."""
    changed = differences(_comparable(load_config(file)), _comparable(wanted))
    if changed:
        shown = "; ".join(f"{path}: {was} there, {now} here" for path, (was, now) in list(changed.items())[:4])
        raise ConfigError(
            f"{where}: the run in {file.parent} was begun with another configuration ({shown}): give the "
            "row another name, the study another folder, or remove the run"
        )


def _comparable(config: RunConfig) -> dict[str, Any]:
    flat = flatten(config.model_dump(mode="json"))
    return {path: value for path, value in flat.items() if path not in CHANGEABLE}
