"""The whole tool: mistakes are planted in small data sets and must be found and named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from mdg.commands import check_data
from mdg.data.check import inspect_dataset
from mdg.registry import DATASETS

REPOSITORY = Path(__file__).resolve().parents[3]


def check(tmp_path: Path, data: dict, *arguments: object) -> tuple[int, dict]:
    """Exit code and JSON report of the tool."""
    config, file = tmp_path / "check.yaml", tmp_path / "report.json"
    config.write_text(yaml.safe_dump({"data": data, "eval": {"selection": "last"}}))
    file.unlink(missing_ok=True)
    code = 0
    try:
        check_data.main([str(part) for part in (config, "--json", file, *arguments)])
    except SystemExit as stop:
        code = stop.code
    return code, json.loads(file.read_text()) if file.exists() else {}


def mfnet(root: Path, **options: object) -> dict:
    return {"type": "MFNet", "root": str(root), **options}


def folder_options(root: Path, **more: object) -> dict:
    patterns = {"rgb": "rgb/{name}.png", "thermal": "thermal/{name}.png", "label": "labels/{name}.png"}
    common = {"type": "Folder", "root": str(root), "split_file": "{split}.txt", "classes": [f"c{k}" for k in range(9)]}
    return {**common, **patterns, **more}


def of_kind(report: dict, kind: str) -> list[dict]:
    return [finding for finding in report["findings"] if finding["kind"] == kind]


def problems(report: dict) -> list[dict]:
    return [finding for finding in report["findings"] if finding["severity"] == "problem"]


def read(file: Path) -> np.ndarray:
    return cv2.imread(str(file), cv2.IMREAD_UNCHANGED)


def write(file: Path, image: np.ndarray, *options: int) -> None:
    assert cv2.imwrite(str(file), image, list(options))


# --- clean ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["packed", "folders"])
def test_a_clean_set_passes(layout, request, tmp_path, capsys):
    code, report = check(tmp_path, mfnet(request.getfixturevalue(layout)))
    assert code == 0 and report["problems"] == 0 and not problems(report)
    assert [report["splits"][role]["frames"]["listed"] for role in ("train", "val", "test")] == [6, 3, 4]
    train = report["splits"]["train"]
    assert train["frames"]["complete"] == train["frames"]["readable"] == 6
    assert train["frames"]["conditions"] == {"day": 3, "night": 3}
    assert train["sizes"] == [{"height": 48, "width": 64, "frames": 6}]
    channels = {"packed": (4, 4, 1), "folders": (3, 1, 1)}[layout]
    stored = [train["stored"][part][0]["channels"] for part in ("rgb", "thermal", "label")]
    assert tuple(stored) == channels and train["thermal"]["dtypes"] == {"uint8": 6}
    assert "published: 784/392/393" in report["notes"][0] and "6/3/4" in report["notes"][0]
    assert "thermal_mean:" in capsys.readouterr().out


def test_statistics_equal_those_of_numpy(folders, scenes, tmp_path):
    _, report = check(tmp_path, mfnet(folders))
    names = (folders / "train.txt").read_text().split()
    rgb = np.concatenate([scenes[name].rgb.reshape(-1, 3) for name in names]).astype(np.float64) / 255
    thermal = np.concatenate([scenes[name].thermal.ravel() for name in names])
    labels = [scenes[name].label for name in names]
    assert report["normalize"]["rgb_mean"] == pytest.approx(rgb.mean(axis=0), rel=1e-12)
    assert report["normalize"]["rgb_std"] == pytest.approx(rgb.std(axis=0), rel=1e-12)
    assert report["normalize"]["thermal_mean"] == pytest.approx(thermal.mean() / 255, rel=1e-12)
    assert report["normalize"]["thermal_std"] == pytest.approx((thermal / 255).std(), rel=1e-12)
    train = report["splits"]["train"]
    pixels = np.bincount(np.concatenate([label.ravel() for label in labels]), minlength=9)
    assert [row["pixels"] for row in train["classes"]] == pixels.tolist()
    assert [row["share"] for row in train["classes"]] == pytest.approx(pixels / pixels.sum(), rel=1e-12)
    assert [row["frames"] for row in train["classes"]] == [
        sum((label == k).any() for label in labels) for k in range(9)
    ]
    assert (train["thermal"]["stored_lowest"], train["thermal"]["stored_highest"]) == (thermal.min(), thermal.max())
    low = np.percentile(thermal, 0.1, method="inverted_cdf")
    assert train["thermal"]["stored_percentile_0.1"] == low
    shares = np.linspace(0, 100, 17)
    quantiles = [np.percentile(scenes[name].thermal, shares, method="inverted_cdf") for name in names]
    assert train["thermal"]["quantiles"] == pytest.approx(np.mean(quantiles, axis=0), rel=1e-12)


# --- problems ------------------------------------------------------------------------------------------------------


def plant_missing(folder):
    def plant(root: Path) -> None:
        (root / folder / "00000D.png").unlink()

    return plant


def plant_truncated(folder):
    def plant(root: Path) -> None:
        file = root / folder / "00000D.png"
        file.write_bytes(file.read_bytes()[:-100])

    return plant


def plant_image(folder: str, make):
    def plant(root: Path) -> None:
        file = root / folder / "00000D.png"
        write(file, make(read(file)))

    return plant


def with_id(label: np.ndarray) -> np.ndarray:
    label[3, 4] = 77
    return label


def plant_leak_by_name(root: Path) -> None:
    (root / "test.txt").write_text((root / "test.txt").read_text() + "00000D\n")


def plant_leak_by_content(*parts: str):
    def plant(root: Path) -> None:
        for part in parts:  # another compression: other bytes, equal pixels
            file = root / part / "00010D.png"
            write(file, read(root / part / "00000D.png"), cv2.IMWRITE_PNG_COMPRESSION, 0)
            assert file.read_bytes() != (root / part / "00000D.png").read_bytes()

    return plant


def plant_duplicate_names(root: Path) -> None:
    (root / "train.txt").write_text((root / "train.txt").read_text() + "00000D\n")


PROBLEMS = {
    "missing rgb": (plant_missing("rgb"), "missing", ["rgb: no file for 00000D"]),
    "missing thermal": (plant_missing("thermal"), "missing", ["thermal: no file for 00000D"]),
    "missing label": (plant_missing("labels"), "missing", ["labels: no file for 00000D"]),
    "truncated rgb": (plant_truncated("rgb"), "rgb", ["rgb/00000D.png", "truncated or damaged"]),
    "truncated thermal": (plant_truncated("thermal"), "thermal", ["thermal/00000D.png", "truncated or damaged"]),
    "truncated label": (plant_truncated("labels"), "label", ["labels/00000D.png", "truncated or damaged"]),
    "other size": (plant_image("thermal", lambda image: image[:, :60]), "frame", ["thermal/00000D.png is 48x60"]),
    "wrong id": (plant_image("labels", with_id), "label", ["labels/00000D.png", "got label ids 77"]),
    "16 bits": (
        plant_image("thermal", lambda image: image.astype(np.uint16) * 30 + 7000),
        "thermal",
        ["thermal/00000D.png", "got uint16", "thermal_scaling"],
    ),
    "leak by name": (
        plant_leak_by_name,
        "leak",
        ["train 00000D and test 00000D: same scene by name, same RGB, same"],
    ),
    "leak by rgb": (plant_leak_by_content("rgb"), "leak", ["train 00000D and test 00010D: same RGB (", "rgb/00010D"]),
    "leak by thermal": (plant_leak_by_content("thermal"), "leak", ["train 00000D and test 00010D: same thermal ("]),
    "duplicate names": (plant_duplicate_names, "split", ["train.txt", "00000D", "more than once"]),
}


@pytest.mark.parametrize("mistake", PROBLEMS)
def test_a_problem_is_found_and_named(mistake, folders, tmp_path, capsys):
    plant, kind, words = PROBLEMS[mistake]
    plant(folders)
    code, report = check(tmp_path, mfnet(folders))
    assert code == 1 and report["problems"] == 1
    (finding,) = problems(report)
    assert finding["kind"] == kind and all(word in finding["message"] for word in words), finding
    shown = capsys.readouterr().out
    assert "1 problem" in shown and "00000D" in shown


def test_a_file_of_both_modalities_is_one_problem(packed, tmp_path):
    plant_truncated("images")(packed)
    code, report = check(tmp_path, mfnet(packed))
    assert code == 1 and [finding["kind"] for finding in problems(report)] == ["rgb"]
    (packed / "images" / "00000D.png").unlink()
    code, report = check(tmp_path, mfnet(packed))
    assert code == 1 and [finding["kind"] for finding in problems(report)] == ["missing"]


def test_every_part_of_a_bad_frame_is_named(folders, tmp_path):
    plant_truncated("rgb")(folders)
    plant_truncated("thermal")(folders)
    plant_image("labels", with_id)(folders)
    (folders / "rgb" / "00002D.png").unlink()
    write(folders / "labels" / "00002D.png", np.full((48, 64), 9, np.uint8))
    _, report = check(tmp_path, mfnet(folders))
    found = sorted((finding["kind"], finding["frames"][0]) for finding in problems(report))
    frame, other = "00000D", "00002D"
    assert found == [("label", frame), ("label", other), ("missing", other), ("rgb", frame), ("thermal", frame)]
    assert report["splits"]["train"]["frames"] | {"conditions": 0} == {
        "listed": 6,
        "complete": 5,
        "readable": 4,
        "conditions": 0,
    }


def test_all_missing_files_are_listed(packed, tmp_path, capsys):
    names = [f"x{number:03}" for number in range(30)]
    (packed / "train.txt").write_text((packed / "train.txt").read_text() + "\n".join(names))
    code, report = check(tmp_path, mfnet(packed))
    missing = of_kind(report, "missing")
    assert code == 1 and len(missing) == 60 and {name for f in missing for name in f["frames"]} == set(names)
    assert "and 40 more: --json FILE" in capsys.readouterr().out


def test_a_mirrored_leak_is_found_and_a_flip_name_is_no_duplicate(packed, tmp_path):
    (packed / "train.txt").write_text("00000D\n00000D_flip\n00001N_flip\n00002D\n")
    (packed / "test.txt").write_text("00001N\n00009N\n")
    code, report = check(tmp_path, mfnet(packed))
    assert code == 1 and not of_kind(report, "duplicate")
    (leak,) = of_kind(report, "leak")
    assert leak["message"].startswith("train 00001N_flip and test 00001N: same scene by name, same RGB, mirrored")
    assert "2 of them are mirror images (_flip)" in report["notes"][0]


def test_other_splits_are_checked_where_one_cannot_be_opened(folders, tmp_path):
    (folders / "val.txt").unlink()
    (folders / "labels" / "00009N.png").unlink()
    code, report = check(tmp_path, mfnet(folders))
    assert code == 1 and sorted(report["splits"]) == ["test", "train"]
    assert [finding["split"] for finding in problems(report)] == ["val", "test"]


def test_a_label_that_is_ignored_everywhere(tmp_path, folders):
    options = folder_options(folders)
    write(folders / "labels" / "00000D.png", np.full((48, 64), 255, np.uint8))
    code, report = check(tmp_path, options)
    (finding,) = problems(report)
    assert code == 1 and finding["kind"] == "empty" and "all 3072 pixels are ignored" in finding["message"]
    assert report["splits"]["train"]["ignored_pixels"] == 3072
    write(folders / "labels" / "00000D.png", np.zeros((48, 64), np.uint8))
    code, report = check(tmp_path, options)
    assert code == 0 and of_kind(report, "background")[0]["frames"] == ["00000D"]


# --- warnings ------------------------------------------------------------------------------------------------------


def test_images_of_one_value_warn_and_are_no_leak(folders, tmp_path):
    for name in ("00000D", "00010D"):
        write(folders / "thermal" / f"{name}.png", np.full((48, 64), 17, np.uint8))
        write(folders / "rgb" / f"{name}.png", np.full((48, 64, 3), (3, 2, 1), np.uint8))
    code, report = check(tmp_path, mfnet(folders))
    assert code == 0 and not of_kind(report, "leak")
    messages = [finding["message"] for finding in of_kind(report, "constant")]
    assert len(messages) == 4
    assert "rgb/00000D.png: RGB is 1, 2, 3 at every pixel;" in messages[0]
    assert "thermal/00000D.png: thermal is 17 at every pixel;" in messages[1]


def test_rgb_taken_for_thermal_warns(folders, scenes, tmp_path):
    write(folders / "thermal" / "00000D.png", cv2.cvtColor(scenes["00000D"].rgb, cv2.COLOR_RGB2GRAY))
    code, report = check(tmp_path, mfnet(folders))
    assert code == 0 and [finding["frames"] for finding in of_kind(report, "copy")] == [["00000D"]]


def test_content_twice_in_a_split_warns(folders, tmp_path):
    for part in ("rgb", "thermal"):
        shutil.copy(folders / part / "00000D.png", folders / part / "00004D.png")
    code, report = check(tmp_path, mfnet(folders))
    (finding,) = of_kind(report, "duplicate")
    assert code == 0 and finding["frames"] == ["00000D", "00004D"]
    assert "00000D and 00004D: same RGB, same thermal, but different labels" in finding["message"]


def test_a_class_that_never_occurs_warns(folders, tmp_path):
    for file in (folders / "labels").iterdir():
        label = read(file)
        label[label == 6] = 0
        write(file, label)
    code, report = check(tmp_path, mfnet(folders))
    found = [
        (finding["split"], finding["message"]) for finding in of_kind(report, "absent") if "guard" in finding["message"]
    ]
    assert code == 0
    assert found == [
        (role, f"guardrail: no pixel in {role}, so its IoU there will be NaN") for role in ("train", "val", "test")
    ]


@pytest.mark.parametrize("size, kind", [((24, 32), "sizes"), ((48, 48), "aspect")])
def test_aligned_sizes_warn_once(size, kind, folders, tmp_path):
    for name in ("00000D", "00002D"):
        write(folders / "thermal" / f"{name}.png", cv2.resize(read(folders / "thermal" / f"{name}.png"), size[::-1]))
    code, report = check(tmp_path, mfnet(folders, align="rgb"))
    (finding,) = [finding for finding in report["findings"] if finding["kind"] in ("sizes", "aspect")]
    assert code == 0 and finding["kind"] == kind and finding["frames"] == ["00000D", "00002D"]
    assert f"thermal {size[0]}x{size[1]}" in finding["message"]
    stored = report["splits"]["train"]["stored"]["thermal"]
    assert {(s["height"], s["width"]): s["files"] for s in stored} == {(48, 64): 4, size: 2}
    assert report["splits"]["train"]["sizes"] == [{"height": 48, "width": 64, "frames": 6}]


# --- 16 bits -------------------------------------------------------------------------------------------------------


def test_the_range_of_raw_values_is_suggested(folders, scenes, tmp_path, capsys):
    for name, scene in scenes.items():
        write(folders / "thermal" / f"{name}.png", scene.thermal.astype(np.uint16) * 10 + 7000)
    code, report = check(tmp_path, mfnet(folders))
    assert code == 1 and len(of_kind(report, "thermal")) == 13
    names = (folders / "train.txt").read_text().split()
    raw = np.concatenate([scenes[name].thermal.ravel() for name in names]).astype(np.int64) * 10 + 7000
    low, high = np.percentile(raw, [0.1, 99.9], method="inverted_cdf")
    assert report["thermal_scaling"] == {"mode": "fixed", "range": [low, high]}
    assert f"thermal_scaling: {{mode: fixed, range: [{low:.0f}, {high:.0f}]}}" in capsys.readouterr().out
    code, report = check(tmp_path, mfnet(folders, thermal_scaling=report["thermal_scaling"]))
    assert code == 0 and report["splits"]["train"]["thermal"]["stored_lowest"] == raw.min()


def test_temperatures_in_tiff_files(folders, scenes, tmp_path, capsys):
    for name, scene in scenes.items():
        (folders / "thermal" / f"{name}.png").unlink()
        write(folders / "thermal" / f"{name}.tiff", 280 + scene.thermal.astype(np.float32) / 10)
    data = folder_options(folders, thermal="thermal/{name}.tiff", thermal_scaling={"mode": "minmax"})
    code, report = check(tmp_path, data)
    assert code == 0 and report["splits"]["train"]["thermal"]["dtypes"] == {"float32": 6}
    names = (folders / "train.txt").read_text().split()
    raw = np.concatenate([280 + scenes[name].thermal.ravel() / 10 for name in names])
    expected = np.percentile(raw, [0.1, 99.9], method="inverted_cdf")
    assert report["thermal_scaling"]["range"] == pytest.approx(expected, abs=0.04)
    low, high = report["thermal_scaling"]["range"]
    assert f"range: [{low:.2f}, {high:.2f}]" in capsys.readouterr().out


def test_mixed_depths_warn(folders, tmp_path):
    plant_image("thermal", lambda image: image.astype(np.uint16) * 30)(folders)
    code, report = check(tmp_path, mfnet(folders, thermal_scaling={"mode": "minmax"}))
    assert code == 0 and "1 of uint16, 5 of uint8" in of_kind(report, "dtypes")[0]["message"]


def test_inverted_thermal_keeps_its_stored_values(folders, tmp_path):
    _, plain = check(tmp_path, mfnet(folders))
    _, inverted = check(tmp_path, mfnet(folders, thermal_scaling={"invert": True}))
    plain, inverted = (report["splits"]["train"]["thermal"] for report in (plain, inverted))
    assert inverted["stored_lowest"] == plain["stored_lowest"]
    assert inverted["stored_percentile_99.9"] == plain["stored_percentile_99.9"]
    assert inverted["mean_std"] == pytest.approx([1 - plain["mean_std"][0], plain["mean_std"][1]], rel=1e-12)


# --- roles ---------------------------------------------------------------------------------------------------------


def write_pst900(root: Path, counts: dict[str, int]) -> Path:
    generator = np.random.default_rng(0)
    for split, count in counts.items():
        for part, channels in (("rgb", 3), ("thermal", 1), ("labels", 1)):
            (root / split / part).mkdir(parents=True)
            for number in range(count):
                image = generator.integers(0, 5 if part == "labels" else 256, (8, 10, channels), np.uint8)
                write(root / split / part / f"{number}.png", image)
    return root


def test_held_out_frames_belong_to_the_split_on_disk(tmp_path):
    root = write_pst900(tmp_path / "pst", {"train": 10, "test": 3})
    code, report = check(tmp_path, {"type": "PST900", "root": str(root), "holdout": 0.2})
    assert code == 0 and [split["frames"]["listed"] for split in report["splits"].values()] == [8, 2, 3]
    assert report["notes"] == [
        "frames of train/test: 10/3; published: 597/288 or 597/297 or 606/288 "
        "(no error, but scores compare on equal splits only)"
    ]


def test_a_role_without_a_split_is_a_note(folders, tmp_path):
    code, report = check(tmp_path, mfnet(folders, val_split=None, limit=2))
    assert code == 0 and list(report["splits"]) == ["train", "test"]
    assert report["notes"] == [
        "no val split: data.val_split is null",
        "data.limit is 2: frames beyond it were not read",
    ]


def test_generated_scenes_have_no_files(tmp_path):
    scenes = {"type": "Synthetic", "height": 40, "width": 48, "train_images": 4, "val_images": 2, "test_images": 2}
    code, report = check(tmp_path, scenes, "--html", tmp_path / "page.html")
    assert code == 0 and report["problems"] == 0 and report["root"] is None
    assert report["splits"]["train"]["stored"] == {"rgb": [], "thermal": [], "label": []}
    assert report["splits"]["train"]["frames"]["readable"] == 4
    assert (tmp_path / "page.html").is_file()


def test_real_frames(mfnet_mini, tmp_path):
    code, report = check(tmp_path, mfnet(mfnet_mini, limit=3))
    assert code == 0 and report["splits"]["test"]["sizes"] == [{"height": 480, "width": 640, "frames": 3}]


# --- the tool ------------------------------------------------------------------------------------------------------


def test_the_report_does_not_depend_on_the_workers(folders, tmp_path):
    plant_truncated("rgb")(folders)
    plant_leak_by_content("thermal")(folders)
    reports = [check(tmp_path, mfnet(folders), "--workers", workers)[1] for workers in (1, 2, 5)]
    assert reports[0]["problems"] == 2 and reports[0] == reports[1] == reports[2]


def test_nothing_is_overwritten(folders, tmp_path, capsys):
    page = tmp_path / "new" / "page.html"
    for name in ("page.html", "page-2.html"):
        check(tmp_path, mfnet(folders), "--html", page)
        assert f"written: {page.with_name(name)}" in capsys.readouterr().out
    first = page.read_text()
    check(tmp_path, mfnet(folders), "--html", page)
    assert page.read_text() == first


def test_mistakes_of_use_exit_with_2(folders, tmp_path, capsys):
    assert check(tmp_path, mfnet(folders), "--workers", "0")[0] == 2
    assert "got '0', expected a whole number" in capsys.readouterr().err
    assert check(tmp_path, mfnet(folders, rot="x"))[0] == 2
    assert "Did you mean 'root'?" in capsys.readouterr().err
    assert check(tmp_path, mfnet(folders), "--html", folders)[0] == 2
    assert "Is a directory; a folder lies where a file is needed" in capsys.readouterr().err
    assert check(tmp_path, mfnet(folders), "--html", tmp_path / "check.yaml" / "x.html")[0] == 2
    assert "--html" in (said := capsys.readouterr().err) and "a part of the path is a file" in said


def test_an_interrupt_ends_it(folders, tmp_path, capsys, monkeypatch):
    def interrupted(self, index):
        raise KeyboardInterrupt

    monkeypatch.setattr("mdg.data.check.frames.Inspector.__call__", interrupted)
    assert check(tmp_path, mfnet(folders), "--workers", 2) == (130, {})
    assert "interrupted" in capsys.readouterr().err


def test_an_odd_file_does_not_end_the_check(folders, monkeypatch):
    def broken(self, file):
        raise RuntimeError("unheard of")

    monkeypatch.setattr("mdg.data.reading.labels.IdLabels.__call__", broken)
    report = inspect_dataset(DATASETS.parse(mfnet(folders)), workers=1)
    assert report.count(problems=True) == 13
    assert "reading it failed with RuntimeError: unheard of" in report.findings[0].message
