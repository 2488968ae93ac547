"""What a study has measured, without its weights, in one file: to pass on, to commit, or to continue elsewhere.

Of every run that is done it holds the configuration, the environment, the scores and the pixels of every image, which
is all that the table of a study is made of.
"""

from __future__ import annotations

import io
import lzma
import shutil
import tarfile
import tempfile
from pathlib import Path

from mdg.engine.evaluation.image_counts import COUNTS
from mdg.engine.evaluation.result_files import read_result
from mdg.engine.study.plan import Job, Study, require_configuration
from mdg.errors import ConfigError, UserError
from mdg.utils.files import explained, replacing, write_bytes
from mdg.utils.limits import limit, require_within

SUFFIX = ".tar.xz"  # compressed as a whole, for runs resemble each other: a third of what a zip takes
DICTIONARY = 128 << 20  # bytes that unpacking may hold besides; the strongest setting of xz asks for 65 MiB
CHUNK = 1 << 20
DAMAGED = (tarfile.TarError, lzma.LZMAError, EOFError, RuntimeError, ValueError)


def pack_records(study: Study, file: Path) -> list[Job]:
    """Writes the records of the runs that are done; returns those. Equal records are equal bytes.

    Raises:
        ConfigError: The name does not end in ``.tar.xz``.
        MachineError: The file cannot be written.
    """
    if not file.name.endswith(SUFFIX):
        raise ConfigError(f"{file}: the records of a study are a {SUFFIX} file; expected a name with that ending")
    done = [job for job in study.jobs if job.scored]
    kept = [(job, name) for job in done for name in _kept(job) if (job.folder / name).is_file()]
    with (
        replacing(file) as stream,
        lzma.open(stream, "wb", preset=9 | lzma.PRESET_EXTREME) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for job, name in sorted(kept, key=lambda entry: entry[1]):  # alike beside alike: some per cent smaller
            with explained(job.folder / name):
                content = (job.folder / name).read_bytes()
            info = tarfile.TarInfo(_member(study, job, name))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return done


def unpack_records(study: Study, file: Path) -> list[Job]:
    """Takes over the runs that a file of records holds and that were not begun here; returns those.

    What is taken follows from the names in the study, not from those in the file.

    Raises:
        ConfigError: No such file, or damaged, or above the limit ``records_bytes``; or a run in it has no readable
            scores, or another configuration than its row.
        MachineError: The study's folder cannot be written.
    """
    records = read_records(file)
    taken = []
    with explained(study.folder):
        study.folder.mkdir(parents=True, exist_ok=True)
    for job in study.jobs:
        scores = [_member(study, job, _scores(job, split)) for split in job.score]
        if not job.scored and not job.run.has_state and records.keys() >= set(scores):
            _take(study, job, records, file)
            taken.append(job)
    return taken


def read_records(file: Path) -> dict[str, bytes]:
    """The files in a file of records by their names, ``ROW/seedN/…``, with ``/``.

    Raises:
        ConfigError: No such file, or damaged, or above the limit ``records_bytes``.
    """
    try:
        with explained(file):
            unpacked = _unxz(file)
        with tarfile.open(fileobj=io.BytesIO(unpacked), mode="r:") as archive:
            # a sparse member is as large as its header likes, whatever lies in the file
            members = [member for member in archive if member.isreg() and not member.issparse()]
            return {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    except UserError:
        raise
    except DAMAGED as error:
        raise ConfigError(f"{file}: not a file of records, or a damaged one ({str(error)[:200]})") from None


def _unxz(file: Path) -> bytes:
    """What is packed in a file, and never more of it than one chunk above the limit."""
    reader = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DICTIONARY)
    unpacked = bytearray()
    with open(file, "rb") as stream:
        while not reader.eof:
            chunk = stream.read(CHUNK) if reader.needs_input else b""
            if reader.needs_input and not chunk:
                raise EOFError("it stops before its end")
            unpacked += reader.decompress(chunk, max_length=limit("records_bytes") + 1 - len(unpacked))
            require_within("records_bytes", len(unpacked), file, ConfigError)
    return bytes(unpacked)


def _scores(job: Job, split: str) -> str:
    return job.results(split).relative_to(job.folder).as_posix()


def _kept(job: Job) -> list[str]:
    """The files of a run that are kept, seen from its folder."""
    results = [_scores(job, split) for split in job.score]
    return ["config.yaml", "environment.json", *(f"{name.rpartition('/')[0]}/{COUNTS}" for name in results), *results]


def _member(study: Study, job: Job, name: str) -> str:
    return f"{job.folder.relative_to(study.folder).as_posix()}/{name}"


def _take(study: Study, job: Job, records: dict[str, bytes], file: Path) -> None:
    """Writes a run beside its place, looks at it, and moves it there whole."""
    with explained(study.folder), tempfile.TemporaryDirectory(dir=study.folder, prefix=".records-") as beside:
        folder = Path(beside) / "run"
        for name in _kept(job):
            member = _member(study, job, name)
            if member in records:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                write_bytes(folder / name, records[member])
        require_configuration(job.resolved(), folder / "config.yaml", f"{file}: {job.title}")
        for split in job.score:
            read_result(folder / _scores(job, split))
        if job.folder.exists():  # ended before anything of worth was saved
            shutil.rmtree(job.folder)
        job.folder.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(job.folder)
