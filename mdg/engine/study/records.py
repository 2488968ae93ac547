"""What a study has measured, without its weights, in one file: to pass on, to commit, or to continue elsewhere.

Of every run that is done it holds the configuration, the environment, the scores and the pixels of every image, which
is all that the table of a study is made of.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from pathlib import Path

from mdg.engine.evaluation.image_counts import COUNTS
from mdg.engine.evaluation.result_files import read_result
from mdg.engine.study.plan import Job, Study, require_configuration
from mdg.errors import ConfigError
from mdg.utils.files import explained, replacing, write_bytes
from mdg.utils.limits import require_within

FIRST_DAY = (1980, 1, 1, 0, 0, 0)  # so that equal records are equal bytes
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeDecodeError)


def pack_records(study: Study, file: Path) -> list[Job]:
    """Writes the records of the runs that are done; returns those.

    Raises:
        MachineError: The file cannot be written.
    """
    done = [job for job in study.jobs if job.scored]
    with replacing(file) as stream, zipfile.ZipFile(stream, "w") as archive:
        for job in done:
            for name in filter(lambda name: (job.folder / name).is_file(), _kept(job)):
                info = zipfile.ZipInfo(_member(study, job, name), FIRST_DAY)
                with explained(job.folder / name):
                    archive.writestr(info, (job.folder / name).read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)
    return done


def unpack_records(study: Study, file: Path) -> list[Job]:
    """Takes over the runs that a file of records holds and that were not begun here; returns those.

    What is read follows from the names in the study, not from those in the file.

    Raises:
        ConfigError: No such file, or damaged; or a run in it has no readable scores, or another configuration than its
            row.
        MachineError: The study's folder cannot be written.
    """
    taken = []
    with explained(study.folder):
        study.folder.mkdir(parents=True, exist_ok=True)
    try:
        with explained(file), zipfile.ZipFile(file) as archive:
            names = set(archive.namelist())
            for job in study.jobs:
                scores = [_member(study, job, _scores(job, split)) for split in job.score]
                if not job.scored and not job.run.has_state and names.issuperset(scores):
                    _take(study, job, archive, names, file)
                    taken.append(job)
    except DAMAGED as error:
        raise ConfigError(f"{file}: not a file of records, or a damaged one ({str(error)[:200]})") from None
    return taken


def _scores(job: Job, split: str) -> str:
    return job.results(split).relative_to(job.folder).as_posix()


def _kept(job: Job) -> list[str]:
    """The files of a run that are kept, seen from its folder."""
    results = [_scores(job, split) for split in job.score]
    return ["config.yaml", "environment.json", *(f"{name.rpartition('/')[0]}/{COUNTS}" for name in results), *results]


def _member(study: Study, job: Job, name: str) -> str:
    return f"{job.folder.relative_to(study.folder).as_posix()}/{name}"


def _take(study: Study, job: Job, archive: zipfile.ZipFile, names: set[str], file: Path) -> None:
    """Unpacks a run beside its place, looks at it, and moves it there whole."""
    with explained(study.folder), tempfile.TemporaryDirectory(dir=study.folder, prefix=".records-") as beside:
        folder = Path(beside) / "run"
        for name in _kept(job):
            member = _member(study, job, name)
            if member not in names:
                continue
            require_within("json_bytes", archive.getinfo(member).file_size, f"{file}: {member}", ConfigError)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, archive.read(member))
        require_configuration(job.resolved(), folder / "config.yaml", f"{file}: {job.title}")
        for split in job.score:
            read_result(folder / _scores(job, split))
        if job.folder.exists():  # ended before anything of worth was saved
            shutil.rmtree(job.folder)
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(job.folder)
