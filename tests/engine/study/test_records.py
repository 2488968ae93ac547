"""The records of a study: packed, taken over elsewhere, and refused where they belong to something else."""

from __future__ import annotations

import io
import lzma
import tarfile
from pathlib import Path

import pytest
from invented_results import CLASSES, invented_result

from mdg.commands import study as command
from mdg.config import dump_yaml
from mdg.engine.evaluation.image_counts import COUNTS, PIXELS
from mdg.engine.study.plan import Study, read_study
from mdg.engine.study.records import SUFFIX, pack_records, read_records, unpack_records
from mdg.engine.study.report import as_markdown
from mdg.errors import ConfigError
from mdg.utils.files import write_json

DEMO = Path(__file__).resolve().parents[3] / "configs" / "demo.yaml"
STUDY = """
name: rows
folder: {folder}
config: {demo}
seeds: [1, 2]
opts: [train.epochs={epochs}]
rows: [{{name: Whole}}, {{name: Bare, opts: [model.interaction=null]}}]
"""


def study_in(folder: Path, epochs: int = 1) -> Study:
    file = folder.with_suffix(".yaml")
    file.write_text(STUDY.format(folder=folder, demo=DEMO, epochs=epochs))
    return read_study(file)


def finish(job) -> None:
    job.results("val").parent.mkdir(parents=True)
    job.run.config.write_text(dump_yaml(job.resolved()))
    (job.folder / "checkpoints").mkdir()
    job.run.last.write_bytes(b"weights")
    write_json(job.results("val"), invented_result(job.row, seed=job.seed))


@pytest.fixture
def packed(tmp_path):
    """Two of four runs in a file, and their study."""
    study = study_in(tmp_path / "here")
    for job in study.jobs[:2]:
        finish(job)
    file = tmp_path / "records.tar.xz"
    assert pack_records(study, file) == list(study.jobs[:2])
    return study, file


def test_a_study_goes_on_where_its_records_are_taken_over(packed, tmp_path):
    here, file = packed
    there = study_in(tmp_path / "there")
    assert [job.title for job in unpack_records(there, file)] == ["Whole, seed 1", "Bare, seed 1"]
    assert [job.scored for job in there.jobs] == [True, True, False, False]
    assert as_markdown(there) == as_markdown(here) and "| Whole | 1 |" in as_markdown(there)
    assert not there.jobs[0].run.has_state and not list(there.folder.glob(".records*"))
    assert unpack_records(there, file) == []
    read_study(tmp_path / "there.yaml")


def test_equal_records_are_equal_bytes_and_hold_no_weights(packed, tmp_path):
    study, file = packed
    again = tmp_path / "again.tar.xz"
    pack_records(study, again)
    assert again.read_bytes() == file.read_bytes()
    with tarfile.open(file) as archive:  # as any program for such files reads it
        assert sorted(archive.getnames())[:2] == ["bare/seed1/config.yaml", "bare/seed1/results/val/results.json"]
    assert read_records(file)["bare/seed1/config.yaml"] == (study.jobs[1].folder / "config.yaml").read_bytes()


def test_a_name_that_says_something_else_is_refused(packed, tmp_path):
    with pytest.raises(ConfigError, match=r"records.zip: the records of a study are a .tar.xz file"):
        pack_records(packed[0], tmp_path / "records.zip")
    assert not (tmp_path / "records.zip").exists()


def test_a_run_that_was_begun_here_goes_on_here(packed, tmp_path):
    there = study_in(tmp_path / "there")
    there.jobs[0].run.last.parent.mkdir(parents=True)
    there.jobs[0].run.last.write_bytes(b"state")
    assert [job.title for job in unpack_records(there, packed[1])] == ["Bare, seed 1"]
    assert there.jobs[0].run.last.read_bytes() == b"state"


def test_records_of_another_configuration_are_refused(packed, tmp_path):
    there = study_in(tmp_path / "there", epochs=2)
    with pytest.raises(ConfigError, match=r"records.tar.xz: Whole, seed 1: .*train.epochs: 1 there, 2 here"):
        unpack_records(there, packed[1])
    assert not there.jobs[0].folder.exists() and not list(there.folder.glob(".records*"))


def tar_of(members: dict[str, bytes], **changes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        lzma.compress(b""),
        lzma.compress(b"no archive" * 1000),
        lzma.compress(tar_of({"name": b"content" * 1000})[:2000]),
        lzma.compress(tar_of({"name": b"content"}), format=lzma.FORMAT_ALONE),
    ],
    ids=["nothing", "text", "xz of nothing", "xz of text", "xz of a cut tar", "another format"],
)
def test_what_is_no_file_of_records(tmp_path, content):
    file = tmp_path / "broken.tar.xz"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"broken.tar.xz: not a file of records"):
        unpack_records(study_in(tmp_path / "there"), file)


def test_no_damage_passes(packed, tmp_path):
    """Cut or changed anywhere, a file is refused and nothing of it stays: xz holds a checksum of what it packs."""
    data = packed[1].read_bytes()
    there = study_in(tmp_path / "there")
    file = tmp_path / "broken.tar.xz"
    for place in range(0, len(data) - 1, 41):
        for broken in (data[:place], data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]):
            file.write_bytes(broken)
            with pytest.raises(ConfigError, match=r"broken.tar.xz: not a file of records"):
                unpack_records(there, file)
    assert not there.folder.exists()


def test_a_small_file_cannot_fill_the_memory(packed, tmp_path, monkeypatch):
    file = tmp_path / "bomb.tar.xz"
    file.write_bytes(lzma.compress(tar_of({"name": bytes(1 << 22)})))
    monkeypatch.setenv("MDG_LIMIT_RECORDS_BYTES", str(1 << 20))
    with pytest.raises(ConfigError, match=r"bomb.tar.xz: got 1,048,577 bytes .* --limit records_bytes="):
        read_records(file)
    assert read_records(packed[1])


def test_links_and_sparse_members_are_not_followed(tmp_path):
    file = tmp_path / "links.tar.xz"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
        file.write_bytes(lzma.compress(tar_of({"name": b""}, type=kind, linkname="/etc/passwd")))
        assert read_records(file) == {}
    pax = {"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 40)}
    file.write_bytes(lzma.compress(tar_of({"name": b"x"}, pax_headers=pax)))
    assert read_records(file) == {}


def test_scores_that_cannot_be_read_are_refused(packed, tmp_path):
    file = tmp_path / "other.tar.xz"
    records = read_records(packed[1])
    file.write_bytes(
        lzma.compress(tar_of({name: b"{}" if name.endswith("results.json") else records[name] for name in records}))
    )
    with pytest.raises(ConfigError, match="not the results.json"):
        unpack_records(study_in(tmp_path / "there"), file)


def test_the_command(packed, tmp_path, capsys):
    _, file = packed
    study_in(tmp_path / "there")
    command.run(command.parse().parse_args([str(tmp_path / "there.yaml"), "--unpack", str(file)]))
    out = capsys.readouterr().out
    assert "2 runs taken from" in out and "2 of 4 are done" in out and "table.md" in out
    command.run(command.parse().parse_args([str(tmp_path / "there.yaml"), "--pack", str(tmp_path / "b.tar.xz")]))
    assert "b.tar.xz: 2 of 4 runs" in capsys.readouterr().out
    assert (tmp_path / "b.tar.xz").read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    "file", sorted((DEMO.parents[1] / "docs" / "studies").iterdir()), ids=lambda file: file.name.removesuffix(SUFFIX)
)
def test_what_is_kept_in_docs_fits_its_study(tmp_path, file):
    """Every run in the file is one of the study as it stands: a default that changed would make it another one."""
    copy = tmp_path / "study.yaml"
    text = (DEMO.parent / "studies" / f"{file.name.removesuffix(SUFFIX)}.yaml").read_text(encoding="utf-8")
    copy.write_text(f"{text}\nfolder: {tmp_path / 'runs'}\n", encoding="utf-8")
    taken = unpack_records(read_study(copy), file)
    kept = {name.partition("/results/")[0] for name in read_records(file) if name.endswith("/results.json")}
    assert {job.folder.relative_to(tmp_path / "runs").as_posix() for job in taken} == kept and kept


def test_the_table_of_what_is_done_to_another_row(packed, tmp_path, capsys):
    study, _ = packed
    header = ["image", *(f"{name} {part}" for name in CLASSES for part in PIXELS)]
    for job, right in zip(study.jobs[:2], (4, 2), strict=True):  # IoU 1 and 1/3 in every class
        lines = [",".join(header), ",".join(["one.png", *[str(right), "4", "4"] * len(CLASSES)])]
        job.results("val").with_name(COUNTS).write_text("\n".join(lines))
    file = str(tmp_path / "here.yaml")
    command.main([file, "--table", "--baseline", "Bare"])
    printed = capsys.readouterr().out
    assert "difference to Bare [95 %]" in printed and as_markdown(study, "Bare") in printed
    bare = next(line for line in printed.splitlines() if line.startswith("| Bare |")).split("|")
    whole = next(line for line in printed.splitlines() if line.startswith("| Whole |")).split("|")
    assert not bare[4].strip() and whole[4].strip() == "+66.67 [+66.67, +66.67]"
    assert sum(job.scored for job in study.jobs) == 2


def test_a_baseline_that_is_no_row_is_refused_before_anything_runs(packed, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        command.main([str(tmp_path / "here.yaml"), "--baseline", "Whle"])
    assert stop.value.code == 2 and "Did you mean 'Whole'" in capsys.readouterr().err
