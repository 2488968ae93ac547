"""Checkpoints: no byte may change, no field may be of another kind, no number may be NaN."""

from __future__ import annotations

import copy
import errno
import random
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from mdg.engine import checkpoint
from mdg.engine.checkpoint import load_checkpoint, load_weights, save_checkpoint, verify_checkpoint
from mdg.errors import MachineError, NonFiniteError, WeightsError
from mdg.models.weight_files import first_non_finite

pytestmark = pytest.mark.no_cover  # thousands of damaged files

FRAMES = {"dataset": "MFNet", "role": "train", "split": "train", "sha256": "ab", "identities": ["1D", "名\udcd6"]}


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 300))


def content(**changes) -> dict:
    """Everything that a ``last.pt`` holds."""
    model = network()
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    whole = {
        "model": model.state_dict(),
        "config": yaml.safe_dump({"seed": 1}),
        "progress": {"epoch": 3, "batch": 0, "step": 12, "best_score": 0.5, "best_epoch": 2, "skipped": 1},
        "mdg_version": "1.0",
        "classes": ["road", "größe 背景"],
        "palette": [[0, 0, 0], [255, 0, 9]],
        "trained_on": FRAMES,
        "selected_on": None,
        "world_size": 2,
        "ema": None,
        "optimizer": optimizer.state_dict(),
        "scaler": {},
        "meter": [{"sums": {"loss": torch.tensor(1.0, dtype=torch.float64)}, "count": 3}] * 2,
    }
    return {**whole, **changes}


@pytest.fixture
def file(tmp_path) -> Path:
    save_checkpoint(tmp_path / "last.pt", content())
    return tmp_path / "last.pt"


def equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_what_was_saved_is_what_is_loaded(file):
    for training in (False, True):
        state = load_checkpoint(file, training)
        new = {"changes": [], "data": {}, "ancestors": []} | (
            {"identity": {}, "schedule": [], "steps_per_epoch": None} if training else {}
        )
        assert equal(state, {"format": 1, **content(), **new})
    verify_checkpoint(file)
    assert zipfile.ZipFile(file).testzip() is None  # other programs read it too
    assert torch.load(file, weights_only=True)["progress"]["step"] == 12


# --- damage ----------------------------------------------------------------------------------------------------------


def damaged(file: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(file)
    with pytest.raises(WeightsError) as alone:
        verify_checkpoint(file)
    assert str(alone.value) == str(caught.value) and str(file) in str(caught.value)
    assert "another checkpoint" in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_every_changed_bit_is_noticed(file):
    whole = file.read_bytes()
    rng = random.Random(0)
    # Random places, then all of the headers at the start and of directory and seal at the end.
    places = [*rng.sample(range(len(whole)), 200), *range(120), *range(len(whole) - 1500, len(whole), 3)]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1 << rng.randrange(8)
        file.write_bytes(changed)
        damaged(file)
    file.write_bytes(whole)
    verify_checkpoint(file)


def test_every_cut_and_everything_appended_is_noticed(file):
    whole = file.read_bytes()
    rng = random.Random(0)
    cuts = [0, 1, 3, 4, 30, *rng.sample(range(len(whole)), 100), *range(len(whole) - 200, len(whole))]
    for changed in [*(whole[:cut] for cut in cuts), whole + b"\0", whole + b"x" * 1000, whole + whole, b"\0" + whole]:
        file.write_bytes(changed)
        damaged(file)


def test_blocks_that_were_lost_or_swapped_are_noticed(file):
    whole = file.read_bytes()
    for first in range(0, len(whole) - 1024, 512):
        one, two = whole[first : first + 512], whole[first + 512 : first + 1024]
        for changed in (bytes(512) + two, two + one):
            if changed != one + two:
                file.write_bytes(whole[:first] + changed + whole[first + 1024 :])
                damaged(file)


def test_a_checkpoint_without_a_seal_is_verified_by_its_crcs(tmp_path):
    file = tmp_path / "older.pt"
    torch.save({"format": 1, **content()}, file)
    verify_checkpoint(file)
    assert load_checkpoint(file)["progress"]["epoch"] == 3
    whole = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        place = next(item for item in archive.infolist() if item.filename.endswith("data/0")).header_offset
    changed = bytearray(whole)
    changed[place + 200] ^= 4
    for content_ in (changed, whole[:-1], whole + b"\0"):
        file.write_bytes(content_)
        damaged(file)


def rewritten(source: Path, target: Path, compression: int, extra: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, (extra or {}).get(name, old.read(name)))
    return target


def test_an_archive_that_unfolds_is_refused(file, tmp_path):
    bomb = {f"{Path(zipfile.ZipFile(file).namelist()[0]).parts[0]}/data/0": bytes(1 << 24)}
    target = rewritten(file, tmp_path / "bomb.pt", zipfile.ZIP_DEFLATED, bomb)
    assert "compressed" in damaged(target)


def test_members_that_share_their_bytes_are_refused(file):
    """Both names of the directory lead to one place."""
    whole = bytearray(file.read_bytes())
    with zipfile.ZipFile(file) as archive:
        directory, (one, two, *_) = archive.start_dir, archive.infolist()
    entry = whole.index(b"PK\x01\x02", directory + 4)  # of the second member
    assert int.from_bytes(whole[entry + 42 : entry + 46], "little") == two.header_offset
    whole[entry + 42 : entry + 46] = one.header_offset.to_bytes(4, "little")
    file.write_bytes(whole)
    assert "lies in others" in damaged(file)


def test_a_directory_beyond_the_limit_is_refused(file, monkeypatch):
    monkeypatch.setenv("MDG_LIMIT_WEIGHTS_DIRECTORY_BYTES", "100")
    with pytest.raises(WeightsError, match="--limit weights_directory_bytes="):
        verify_checkpoint(file)


def test_crcs_are_written_even_where_a_program_switched_them_off(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        save_checkpoint(tmp_path / "a.pt", content())
        assert torch.serialization.get_crc32_options() is False
    finally:
        torch.serialization.set_crc32_options(True)
    verify_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("name", ["nowhere.pt", "folder"])
def test_what_is_no_file_is_said(tmp_path, name):
    (tmp_path / "folder").mkdir()
    for read in (load_checkpoint, verify_checkpoint):
        with pytest.raises(WeightsError, match=rf"{name}: (no such file|a folder)"):
            read(tmp_path / name)


# --- writing ---------------------------------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_checkpoint_and_nothing_else(file, monkeypatch):
    def fail(content, stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(MachineError, match=r"last\.pt: cannot be written \(No space left"):
        save_checkpoint(file, content(mdg_version="2"))
    assert load_checkpoint(file)["mdg_version"] == "1.0" and [path.name for path in file.parent.iterdir()] == [
        file.name
    ]


def test_the_state_before_is_kept_where_it_is_wanted(file, tmp_path):
    save_checkpoint(file, content(mdg_version="2"), keep_as=tmp_path / "previous.pt")
    versions = [load_checkpoint(tmp_path / name)["mdg_version"] for name in ("previous.pt", "last.pt")]
    assert versions == ["1.0", "2"]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["model", "buffer", "ema", "optimizer"])
def test_weights_that_are_not_finite_are_never_written(file, part, value):
    state = copy.deepcopy(content(ema={"module.a": torch.ones(3)}))
    target, name = {
        "model": (state["model"]["0.weight"], "model.0.weight"),
        "buffer": (state["model"]["1.running_var"], "model.1.running_var"),
        "ema": (state["ema"]["module.a"], "ema.module.a"),
        "optimizer": (state["optimizer"]["state"][2]["exp_avg_sq"], "optimizer.state.2.exp_avg_sq"),
    }[part]
    target.view(-1)[1] = value
    before = file.read_bytes()
    with pytest.raises(NonFiniteError, match=rf"not written, as {name} holds NaN or infinity"):
        save_checkpoint(file, state)
    assert file.read_bytes() == before


def test_weights_that_are_not_finite_are_never_scored(tmp_path):
    state = content()
    state["model"]["1.running_mean"][3] = float("nan")
    torch.save({"format": 1, **state}, tmp_path / "older.pt")
    model, before = network(), network().state_dict()
    with pytest.raises(NonFiniteError, match=r"older\.pt: 1\.running_mean holds NaN.*earlier checkpoint"):
        load_weights(model, load_checkpoint(tmp_path / "older.pt")["model"], tmp_path / "older.pt")
    assert equal(dict(model.state_dict()), dict(before))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_the_first_tensor_that_is_not_finite_is_found(dtype):
    tensors = {"empty": torch.zeros(0), "ids": torch.tensor([1 << 62] * 4), "a": torch.ones(5), "b": torch.ones(3, 4)}
    tensors = {name: value.to(dtype) if value.is_floating_point() else value for name, value in tensors.items()}
    assert first_non_finite(tensors) is None and first_non_finite({}) is None
    tensors["b"].view(-1)[7] = float("nan")
    assert first_non_finite(tensors) == "b"
    assert first_non_finite({"z": torch.tensor(1 + 1j * float("inf")), **tensors}) == "z"


def test_large_numbers_are_finite():
    largest = {dtype: torch.finfo(dtype).max for dtype in (torch.float16, torch.float32, torch.float64)}
    tensors = {str(dtype): torch.full((100,), value, dtype=dtype) for dtype, value in largest.items()}
    assert first_non_finite(tensors) is None  # although the sums are not
    tensors["torch.float32"][0] = -float("inf")
    assert first_non_finite(tensors) == "torch.float32"


# --- fields ----------------------------------------------------------------------------------------------------------


def broken(tmp_path: Path, training: bool = False, drop: str = "", **changes) -> str:
    state = {"format": 1, **content(**changes)}
    state.pop(drop, None)
    torch.save(state, tmp_path / "odd.pt")
    with pytest.raises(WeightsError) as caught:
        load_checkpoint(tmp_path / "odd.pt", training)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'odd.pt'}: ") and "\n" not in message and len(message) < 600
    return message


@pytest.mark.parametrize("name", ["config", "progress", "mdg_version", "classes", "palette"])
def test_a_missing_field_is_named(tmp_path, name):
    assert f": {name}: missing" in broken(tmp_path, drop=name)


@pytest.mark.parametrize("name", ["world_size", "optimizer", "scaler", "meter", "ema"])
def test_a_field_that_only_a_resume_needs(tmp_path, name):
    message = broken(tmp_path, training=True, drop=name)
    assert f": {name}: missing" in message and "checkpoints/last.pt" in message
    torch.save({"format": 1, **{key: value for key, value in content().items() if key != name}}, tmp_path / "best.pt")
    assert name not in load_checkpoint(tmp_path / "best.pt")


SPREAD = torch.zeros(1).expand(1 << 40)


@pytest.mark.filterwarnings("ignore:Sparse invariant")
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "1"}, ["format: got '1'", "integer"]),
        ({"format": True}, ["format: got True"]),
        ({"model": 3}, ["model: got 3", "expected a mapping"]),
        ({"model": []}, ["model: got a list"]),
        ({"model": {"a": 1}}, ["model.a: got 1", "expected a tensor"]),
        ({"model": {1: torch.zeros(1)}}, ["model.1", "expected text"]),
        ({"model": {"a": SPREAD}}, ["model.a: got a Tensor, expected a tensor with a number in the file for each"]),
        ({"model": {"a": torch.eye(3).to_sparse()}}, ["model.a: got a Tensor, expected a dense tensor"]),
        ({"ema": {"a": None}}, ["ema.a: got None"]),
        ({"config": 5}, ["config: got 5"]),
        ({"config": None}, ["config: got None"]),
        ({"config": "a: \0"}, ["config: got", "NUL"]),
        ({"progress": None}, ["progress: got None"]),
        ({"progress": {"x": 1}}, ["progress.epoch: missing"]),
        ({"progress": {"epoch": float("nan")}}, ["progress.epoch: got nan", "integer"]),
        ({"progress": {"epoch": -1}}, ["progress.epoch: got -1"]),
        ({"progress": {"epoch": 1 << 70}}, ["progress.epoch: got 1180591"]),
        ({"progress": {"epoch": "3"}}, ["progress.epoch: got '3'"]),
        ({"progress": {"epoch": True}}, ["progress.epoch: got True"]),
        ({"progress": {"epoch": 1, "best_score": float("nan")}}, ["progress.best_score: got nan", "finite"]),
        ({"classes": "road"}, ["classes: got 'road'", "list"]),
        ({"classes": []}, ["classes", "at least 1"]),
        ({"classes": ["a", 3]}, ["classes.1: got 3"]),
        ({"classes": ["a", "b\0"]}, ["classes.1", "NUL"]),
        ({"classes": ["a"]}, ["palette has 2 colours, classes has 1 names"]),
        ({"palette": [[0, 0, 0], [0, 0]]}, ["palette.1", "3"]),
        ({"palette": [[0, 0, 0], [0, 0, 256]]}, ["palette.1.2: got 256"]),
        ({"palette": torch.zeros(2, 3)}, ["palette: got a Tensor"]),
        ({"trained_on": 3}, ["trained_on: got 3, expected a mapping;"]),
        ({"trained_on": []}, ["trained_on: got a list"]),
        ({"trained_on": {**FRAMES, "identities": "x"}}, ["trained_on.identities: got 'x'"]),
        ({"trained_on": {**FRAMES, "identities": [{}]}}, ["trained_on.identities.0: got a dict"]),
        ({"selected_on": {"role": "val"}}, ["selected_on.dataset: missing"]),
        ({"world_size": 0}, ["world_size: got 0"]),
        ({"mdg_version": b"1"}, ["mdg_version: got a bytes"]),
        ({"changes": "x"}, ["changes: got 'x'"]),
        ({"data": {"a": 1}}, ["data.a: got 1"]),
    ],
)
def test_a_field_of_the_wrong_kind_is_one_line(tmp_path, changes, words):
    message = broken(tmp_path, **changes)
    assert all(word in message for word in words), message


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"optimizer": {}}, ["optimizer.state: missing"]),
        ({"optimizer": {"state": [], "param_groups": []}}, ["optimizer.state: got a list"]),
        ({"optimizer": {"state": {}, "param_groups": []}}, ["optimizer.param_groups", "at least 1"]),
        ({"optimizer": {"state": {0: 1}, "param_groups": [{}]}}, ["optimizer.state.0: got 1"]),
        ({"scaler": None}, ["scaler: got None"]),
        ({"meter": [1]}, ["meter.0: got 1"]),
        ({"meter": {"sums": {"loss": 3.0}, "count": 1}}, ["meter.0.sums.loss: got 3.0"]),
        ({"meter": [{"sums": {}, "count": -1}]}, ["meter.0.count: got -1"]),
        ({"identity": []}, ["identity: got a list"]),
        ({"schedule": {}}, ["schedule: got a dict"]),
    ],
)
def test_a_field_of_the_training_state(tmp_path, changes, words):
    message = broken(tmp_path, training=True, **changes)
    assert all(word in message for word in words), message
    assert load_checkpoint(tmp_path / "odd.pt")["classes"]  # an evaluation does not look at it


@pytest.mark.parametrize("where", ["format", "model", "config"])
def test_values_that_are_nested_too_deeply(file, tmp_path, where):
    """A pickle by hand, as Python itself refuses to write it: ``{"format": 1, "model": {}, where: [[[...]]]}``."""
    deep = b"]" * 100_000 + b"a" * 99_999
    key = b"X" + len(where).to_bytes(4, "little") + where.encode()
    pickle = b"\x80\x02}X\x06\0\0\0formatK\x01sX\x05\0\0\0model}s" + key + deep + b"s."
    name = next(name for name in zipfile.ZipFile(file).namelist() if name.endswith("data.pkl"))
    target = rewritten(file, tmp_path / "deep.pt", zipfile.ZIP_STORED, {name: pickle})
    with pytest.raises(WeightsError, match=rf"deep\.pt: {where}: got a list"):
        load_checkpoint(target)


def test_the_meter_of_before_was_one(tmp_path):
    torch.save({"format": 1, **content(meter={"sums": {}, "count": 0})}, tmp_path / "older.pt")
    assert load_checkpoint(tmp_path / "older.pt", training=True)["meter"] == [{"sums": {}, "count": 0}]


@pytest.mark.parametrize(
    ("content_", "message"),
    [
        ({"patch_embed1.proj.weight": torch.zeros(1)}, "not a checkpoint of mdg"),
        ([1, 2], "not a checkpoint of mdg"),
        ({"format": 99, "model": {}}, "checkpoint format 99"),
        ({"format": 1, "model": {}}, "config: missing"),
    ],
)
def test_other_files_are_refused(tmp_path, content_, message):
    torch.save(content_, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match=message):
        load_checkpoint(tmp_path / "other.pt")


def test_a_checkpoint_holds_no_code(tmp_path):
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return (marker.write_text, ("boom",))

    torch.save({"format": 1, "model": Bomb()}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match=r"evil\.pt: not a readable file of weights: .*refused"):
        load_checkpoint(tmp_path / "evil.pt")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda own: own.pop("0.bias"), "0.bias is missing"),
        (lambda own: own.update(x=torch.zeros(1)), "x is not in the model"),
        (lambda own: own.update({"0.bias": torch.zeros(9)}), r"0\.bias is \(9,\), needs \(8,\)"),
        (lambda own: own.update({"0.bias": torch.zeros(8, dtype=torch.int64)}), "0.bias holds whole numbers"),
        (lambda own: own.update({"0.bias": torch.zeros(8, dtype=torch.complex64)}), "0.bias holds complex numbers"),
        (lambda own: own.update({"1.num_batches_tracked": torch.tensor(1.5)}), "holds floating numbers"),
    ],
)
def test_tensors_that_do_not_fit_are_named(change, words):
    tensors = dict(network().state_dict())
    change(tensors)
    with pytest.raises(WeightsError, match=rf"x\.pt: 1 tensors do not fit.*{words}"):
        load_weights(network(), tensors, "x.pt")


def test_a_disk_that_refuses_one_write_says_so(file, monkeypatch):
    """torch.save would hide the reason where the next write succeeds."""
    before, writes, watched = file.read_bytes(), [], checkpoint._Watched

    class Refusing:
        def __init__(self, stream):
            self.stream = stream

        def write(self, data):
            writes.append(1)
            if len(writes) == 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.stream.write(data)

    monkeypatch.setattr(checkpoint, "_Watched", lambda stream: watched(Refusing(stream)))
    with pytest.raises(MachineError, match="No space left"):
        save_checkpoint(file, content())
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]
