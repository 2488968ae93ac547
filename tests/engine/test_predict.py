"""Masks for anyone's pairs: options without a data set, folders with a bad file in them, outputs that exist."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from mdg.config import load_config
from mdg.data import build_dataset
from mdg.data.reading.pair_files import find_pairs
from mdg.data.reading.video import Video, VideoFile
from mdg.engine import predict as predict_module
from mdg.engine.predict import UnusablePairs, predict
from mdg.engine.predictor import options_of_pair, parse_choices
from mdg.errors import ConfigError, DataError, MachineError, UserError
from mdg.options.files import PairOptions, ThermalScaling
from mdg.utils import visualization as vis

SIZE = (40, 48)


def write(file: Path, image: np.ndarray) -> Path:
    """Channels in OpenCV's order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(file), image)
    return file


def error_of(action, kind: type[UserError] = DataError) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


@pytest.fixture
def frame():
    return build_dataset({"type": "Synthetic", "height": SIZE[0], "width": SIZE[1]}, "test").read(0)


@pytest.fixture
def segments(tiny_run, tiny_yaml, tmp_path):
    """Predicts with a network that was trained on generated scenes, whose type knows no options of files."""
    checkpoint = tiny_run("trained", "train.max_steps=1").last

    def run(rgb: Path, thermal: Path | None = None, **more: object) -> list[Path]:
        return predict(rgb, thermal, checkpoint, tiny_yaml, **{"out_dir": tmp_path / "masks", **more})

    return run


@pytest.fixture
def pairs(frame, tmp_path) -> tuple[Path, Path]:
    """Two folders with pairs a to e."""
    for name in "abcde":
        write(tmp_path / "rgb" / f"{name}.png", frame.rgb_HW3[..., ::-1])
        write(tmp_path / "ir" / f"{name}.png", frame.thermal_HW)
    return tmp_path / "rgb", tmp_path / "ir"


def mask_of(file: Path) -> np.ndarray:
    return cv2.imread(str(file), cv2.IMREAD_UNCHANGED)


# --- options without a data set ----------------------------------------------------------------------------------


def test_sixteen_bits_are_usable_with_a_network_of_generated_scenes(segments, frame, tmp_path):
    rgb = write(tmp_path / "x.png", frame.rgb_HW3[..., ::-1])
    raw = write(tmp_path / "raw.png", 7000 + 10 * frame.thermal_HW.astype(np.uint16))
    message = error_of(lambda: segments(rgb, raw))
    assert "--thermal-scaling '{mode: fixed, range: [LOW, HIGH]}'" in message and "data." not in message
    assert not (tmp_path / "masks").exists()
    (mask,) = segments(rgb, raw, thermal_scaling="{mode: fixed, range: [7000, 9550]}")
    (plain,) = segments(rgb, write(tmp_path / "ir.png", frame.thermal_HW), out_dir=tmp_path / "plain")
    np.testing.assert_array_equal(mask_of(mask), mask_of(plain))


def test_two_sizes_and_grey_photos_are_usable_too(segments, frame, tmp_path):
    grey = write(tmp_path / "x.png", cv2.resize(frame.rgb_HW3[..., 0], (96, 80)))
    thermal = write(tmp_path / "ir.png", frame.thermal_HW)
    assert "--grey-rgb repeat" in error_of(lambda: segments(grey, thermal))
    message = error_of(lambda: segments(grey, thermal, grey_rgb="repeat"))
    assert "--align rgb resizes" in message and "data." not in message
    for part, size in (("rgb", (80, 96)), ("thermal", SIZE)):
        (mask,) = segments(grey, thermal, grey_rgb="repeat", align=part, out_dir=tmp_path / part)
        assert mask_of(mask).shape == size


@pytest.mark.parametrize(
    "given, message",
    [
        ({"align": "left"}, "--align: got 'left'; Input should be 'refuse', 'rgb', 'thermal' or 'label'"),
        ({"grey_rgb": "yes"}, "--grey-rgb: got 'yes'; Input should be 'refuse' or 'repeat'"),
        ({"thermal_scaling": "{mode: fixed}"}, "expected a range with `mode: fixed`"),
        ({"thermal_scaling": "{mod: minmax}"}, "--thermal-scaling: mod: got 'minmax'; expected one of"),
        ({"thermal_scaling": "{mode: "}, "--thermal-scaling"),
        ({"thermal_scaling": "sideways"}, "--thermal-scaling: mode: got 'sideways'"),
        ({"thermal_scaling": "[1, 2]"}, "--thermal-scaling"),
    ],
)
def test_flags_are_checked_before_anything_else(given, message):
    """Not even a path is looked at."""
    assert message in error_of(lambda: predict("/nowhere", **given), ConfigError)


def test_flags_win_over_what_the_training_set_was_prepared_with(tmp_path):
    trained = {"thermal_scaling": {"mode": "minmax"}, "align": "thermal", "grey_rgb": "repeat"}
    data = {"type": "Folder", "root": "x", "classes": ["a", "b"], "val_split": None, "holdout": 0.1, **trained}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"data": data}))
    config = load_config(tmp_path / "run.yaml")
    assert options_of_pair(config, {}) == PairOptions(**trained)
    chosen = parse_choices(thermal_scaling="percentile", align=None, grey_rgb="refuse")
    expected = PairOptions(thermal_scaling=ThermalScaling(mode="percentile"), align="thermal", grey_rgb="refuse")
    assert options_of_pair(config, chosen) == expected
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({"data": {"type": "Synthetic"}}))
    assert options_of_pair(load_config(tmp_path / "run.yaml"), {}) == PairOptions()


# --- inputs ------------------------------------------------------------------------------------------------------


def test_a_photo_alone_lacks_thermal(frame, tmp_path):
    """Told without a checkpoint at hand: nothing is loaded for it."""
    photo = write(tmp_path / "rgb" / "x.jpg", frame.rgb_HW3)
    for given in (photo, photo.parent):
        message = error_of(lambda given=given: predict(given, checkpoint="/nowhere"))
        assert str(photo) in message and "got 3 channel(s), expected 4" in message and "with --thermal" in message


def test_four_channels_beside_a_thermal_image_and_alone(segments, frame, tmp_path):
    packed = write(tmp_path / "x.png", np.dstack([frame.rgb_HW3, frame.thermal_HW]))
    thermal = write(tmp_path / "heat.png", frame.thermal_HW)
    assert "leave --thermal out" in error_of(lambda: segments(packed, thermal))
    assert len(segments(packed)) == 1
    assert len(segments(packed, packed, out_dir=tmp_path / "twice")) == 1


def test_what_is_no_image_is_said_to_be_what_it_is(segments, tmp_path):
    clip = tmp_path / "film" / "clip.mp4"
    clip.parent.mkdir()
    clip.write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    assert "cannot be opened as a video; it is damaged" in error_of(lambda: segments(clip, clip))
    message = error_of(lambda: segments(clip.parent, clip.parent))
    assert "no images in this folder, whose names end in .png, .jpg" in message and "there are .mp4" in message


def test_two_images_of_one_name_would_have_one_mask(pairs):
    rgb, thermal = pairs
    write(rgb / "a.jpg", np.zeros((*SIZE, 3), np.uint8))
    message = error_of(lambda: find_pairs(rgb, thermal))
    assert "a.png" in message and "a.jpg" in message and "rename one" in message


def test_names_without_a_partner(pairs):
    rgb, thermal = pairs
    (thermal / "c.png").rename(thermal / "C.png")
    message = error_of(lambda: find_pairs(rgb, thermal))
    assert f"1 image(s) of {rgb} have no partner of the same name in {thermal}: c" in message
    assert "'C' is there, which differs in the case of letters" in message


def test_a_partner_that_is_missing_is_not_taken_for_one_of_another_case(pairs):
    rgb, thermal = pairs
    (rgb / "c.png").unlink()
    message = error_of(lambda: find_pairs(rgb, thermal))
    assert f"1 image(s) of {thermal} have no partner of the same name in {rgb}: c; where names differ" in message


def test_a_partner_of_a_kind_that_is_not_read(pairs):
    rgb, thermal = pairs
    (rgb / "c.png").rename(rgb / "c.heic")
    assert "c.heic is there, but '.heic' is not read here" in error_of(lambda: find_pairs(rgb, thermal))


def test_a_topic_is_no_image():
    assert "no such file or folder; expected an image, a folder" in error_of(
        lambda: find_pairs(Path("/camera/rgb"), None)
    )


def test_composed_and_decomposed_names_are_partners(pairs):
    rgb, thermal = pairs
    (rgb / "a.png").rename(rgb / "\u00fcber.png")
    (thermal / "a.png").rename(thermal / "u\u0308ber.png")
    assert find_pairs(rgb, thermal)["\u00fcber"] == (rgb / "\u00fcber.png", thermal / "u\u0308ber.png")


def test_a_file_beside_a_folder(pairs):
    assert "expected two files or two folders" in error_of(lambda: find_pairs(pairs[0], pairs[1] / "a.png"))


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX only")
def test_a_name_that_is_not_utf8(segments, frame, tmp_path):
    name = os.fsdecode(b"\xd6\xd0_01.png")
    for folder, image in (("rgb", frame.rgb_HW3), ("ir", frame.thermal_HW)):
        (tmp_path / folder).mkdir()
        try:
            (tmp_path / folder / name).write_bytes(cv2.imencode(".png", image)[1].tobytes())
        except OSError:
            pytest.skip("this file system takes UTF-8 only")
    (mask,) = segments(tmp_path / "rgb", tmp_path / "ir")
    assert os.fsencode(mask.name) == b"\xd6\xd0_01_mask.png" and mask.stat().st_size > 0


# --- bad files in a folder, and going on ---------------------------------------------------------------------------


def test_a_bad_file_does_not_stop_the_others(segments, pairs, tmp_path):
    rgb, thermal = pairs
    (rgb / "b.png").write_bytes((rgb / "b.png").read_bytes()[:200])
    write(thermal / "d.png", np.zeros((SIZE[0], SIZE[1] * 2), np.uint8))
    with pytest.raises(UnusablePairs) as caught:
        segments(rgb, thermal)
    message = str(caught.value)
    assert caught.value.exit_code == 1 and message.startswith("2 of 5 pairs were left out:\n")
    assert str(rgb / "b.png") in message and "Their proportions differ" in message
    written = sorted(file.name for file in (tmp_path / "masks").iterdir())
    assert written == [f"{name}_{kind}.png" for name in "ace" for kind in ("mask", "overlay")]


def test_resume_goes_on_where_outputs_are_missing(segments, pairs, tmp_path, capsys):
    rgb, thermal = pairs
    whole = (rgb / "b.png").read_bytes()
    (rgb / "b.png").write_bytes(whole[:200])
    with pytest.raises(UnusablePairs):
        segments(rgb, thermal)
    (rgb / "b.png").write_bytes(whole)
    (tmp_path / "masks" / "d_mask.png").unlink()  # of a process that was killed between the two
    kept = (tmp_path / "masks" / "a_mask.png").stat().st_mtime_ns
    message = error_of(lambda: segments(rgb, thermal))
    assert "a_overlay.png exists and is not overwritten; --resume leaves out the pairs that are done" in message
    assert [mask.name for mask in segments(rgb, thermal, resume=True)] == ["b_mask.png", "d_mask.png"]
    assert (tmp_path / "masks" / "a_mask.png").stat().st_mtime_ns == kept
    assert segments(rgb, thermal, resume=True) == [] and "nothing left to do" in capsys.readouterr().out


def test_a_full_disk_stops_at_once(segments, pairs, monkeypatch):
    def full(file: Path, picture: np.ndarray) -> None:
        raise MachineError(f"{file}: cannot be written (No space left on device)")

    monkeypatch.setattr(vis, "save_picture", full)
    assert "a_overlay.png" in error_of(lambda: segments(*pairs), MachineError)


def test_many_bad_files_are_counted(segments, pairs, monkeypatch):
    monkeypatch.setattr(predict_module, "SHOWN", 2)
    for name in "bcde":
        (pairs[0] / f"{name}.png").write_bytes(b"")
    message = error_of(lambda: segments(*pairs), UnusablePairs)
    assert message.count("it is empty") == 2 and message.endswith("\n  and 2 more")


# --- outputs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["file", "below a file", "/proc/x", "/dev/full", "inputs"])
def test_a_place_that_takes_no_outputs_is_told_before_anything_is_loaded(pairs, tmp_path, place):
    (tmp_path / "file").write_text("")
    out = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "x", "inputs": pairs[0]}.get(
        place, Path(place)
    )
    before = sorted(tmp_path.rglob("*"))
    message = error_of(lambda: predict(*pairs, checkpoint="/nowhere", out_dir=out), UserError)
    assert str(out) in message and "/nowhere" not in message
    assert sorted(tmp_path.rglob("*")) == before and (tmp_path / "file").read_text() == ""


# --- what is written ----------------------------------------------------------------------------------------------


def test_everything_that_can_be_saved(segments, pairs, tmp_path, capsys):
    rgb, thermal = pairs
    out = tmp_path / "masks"
    kinds = ["mask", "overlay", "colour", "probabilities", "areas"]
    segments(rgb, thermal, save=kinds, batch_size=2)
    assert "5 pairs: mask, probabilities, colour, overlay; areas.jsonl in" in capsys.readouterr().out
    mask = cv2.imread(str(out / "a_mask.png"), cv2.IMREAD_UNCHANGED)
    saved = np.load(out / "a_probabilities.npz")
    assert saved["probabilities"].shape == (9, *SIZE) and saved["probabilities"].dtype == np.float16
    assert (saved["probabilities"].argmax(0) == mask).mean() > 0.99 and len(saved["classes"]) == 9
    lines = [json.loads(line) for line in (out / "areas.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == list("abcde")
    share = dict(zip(lines[0]["areas"], np.bincount(mask.ravel(), minlength=9) / mask.size, strict=True))
    assert lines[0]["areas"] == pytest.approx(share, abs=1e-5)
    assert cv2.imread(str(out / "a_colour.png")).shape == (*SIZE, 3)


@pytest.mark.parametrize("kind", ["coco", "cvat", "uncertainty"])
def test_a_file_of_all_pairs_is_not_replaced_by_one_of_the_rest(segments, pairs, tmp_path, kind):
    segments(*pairs, save=["mask", kind, "areas"])
    before = {file: file.read_bytes() for file in (tmp_path / "masks").iterdir()}
    (tmp_path / "masks" / "c_mask.png").unlink()
    message = error_of(lambda: segments(*pairs, save=["mask", kind, "areas"], resume=True), ConfigError)
    assert f"--resume with --save {kind}: these are made of all pairs at once" in message
    segments(*pairs, save=["mask", "areas"], resume=True)
    after = {file: file.read_bytes() for file in (tmp_path / "masks").iterdir()}
    assert {file.name for file in before if after[file] != before[file]} == {"areas.jsonl"}
    with pytest.raises(ConfigError, match="--resume with --save areas"):
        segments(*pairs, save=["areas"], resume=True)


def test_only_what_is_asked_for(segments, pairs, tmp_path):
    segments(*pairs, save=["colour"])
    assert {file.name for file in (tmp_path / "masks").iterdir()} == {f"{name}_colour.png" for name in "abcde"}
    message = error_of(lambda: segments(*pairs, save=["color"]), ConfigError)
    assert "--save color: expected some of overlay, colour" in message and "Did you mean 'colour'?" in message


def test_a_network_without_divergence(segments, pairs):
    message = error_of(lambda: segments(*pairs, save=["divergence"]), ConfigError)
    assert "does not measure where the modalities diverge" in message


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_pairs_of_other_sizes_do_not_share_a_batch(segments, frame, tmp_path, batch_size):
    for name, side in zip("abcd", (48, 48, 64, 64), strict=True):
        write(tmp_path / "rgb" / f"{name}.png", cv2.resize(frame.rgb_HW3, (side, 40)))
        write(tmp_path / "ir" / f"{name}.png", cv2.resize(frame.thermal_HW, (side, 40)))
    masks = segments(tmp_path / "rgb", tmp_path / "ir", batch_size=batch_size, out_dir=tmp_path / f"o{batch_size}")
    assert [cv2.imread(str(mask), -1).shape for mask in masks] == [(40, 48), (40, 48), (40, 64), (40, 64)]


def test_sub_folders_are_kept(segments, frame, tmp_path):
    for part, image in (("rgb", frame.rgb_HW3[..., ::-1]), ("ir", frame.thermal_HW)):
        write(tmp_path / part / "day" / "1.png", image)
    (mask,) = segments(tmp_path / "rgb", tmp_path / "ir")
    assert mask == tmp_path / "masks" / "day" / "1_mask.png" and mask.is_file()


def test_a_list_of_pairs(segments, pairs, tmp_path):
    (tmp_path / "list.csv").write_text("rgb,thermal,name\nrgb/a.png,ir/b.png,mixed\n")
    assert [mask.name for mask in segments(None, pair_list=tmp_path / "list.csv")] == ["mixed_mask.png"]
    assert "expected --rgb or --pairs, and not both" in error_of(lambda: segments(None), ConfigError)


def test_shapes_to_correct_and_which_first(segments, pairs, tmp_path):
    segments(*pairs, save=["mask", "labelme", "coco", "cvat", "uncertainty", "probabilities"])
    out = tmp_path / "masks"
    drawn = json.loads((out / "a.json").read_text())
    assert (out / drawn["imagePath"]).resolve() == (pairs[0] / "a.png").resolve()
    assert (drawn["imageHeight"], drawn["imageWidth"]) == SIZE
    coco = json.loads((out / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == [f"{name}.png" for name in "abcde"]
    assert (out / "cvat.xml").read_text().count("<image ") == 5
    lines = (out / "uncertainty.csv").read_text().splitlines()
    probable = np.load(out / "a_probabilities.npz")["probabilities"].astype(np.float64)
    entropy = -(probable * np.log(np.maximum(probable, 1e-12))).sum(0).mean() / np.log(9)
    values = [float(line.split(",")[1]) for line in lines[1:]]
    assert lines[0] == "name,uncertainty" and values == sorted(values, reverse=True)
    assert float(dict(line.split(",") for line in lines[1:])["a"]) == pytest.approx(entropy, abs=1e-3)


# --- videos -------------------------------------------------------------------------------------------------------


@pytest.fixture
def videos(frame, tmp_path) -> tuple[Path, Path]:
    """Six frames of one scene by two cameras."""
    files = tmp_path / "visible.mp4", tmp_path / "infrared.mp4"
    for file, image in zip(files, (frame.rgb_HW3, vis.grey(frame.thermal_HW)), strict=True):
        with VideoFile(file, 10, SIZE) as video:
            for _ in range(6):
                video.write(image)
    return files


def test_two_videos_become_one_with_areas(segments, videos, tmp_path):
    assert segments(*videos) == []
    out = tmp_path / "masks"
    assert sorted(file.name for file in out.iterdir()) == ["areas.jsonl", "visible.mp4"]
    with Video(out / "visible.mp4") as video:
        frames = list(video)
        assert len(frames) == 6 and video.rate == pytest.approx(10) and frames[0].shape[1] == 48
    lines = [json.loads(line) for line in (out / "areas.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == [f"visible_{place:06d}" for place in range(6)]
    message = error_of(lambda: segments(*videos))
    assert "areas.jsonl exists and is not overwritten" in message


def test_frames_can_be_picked(segments, videos, tmp_path):
    masks = segments(*videos, save=["mask"], every=2, frames=2)
    assert [mask.name for mask in masks] == ["visible_000000_mask.png", "visible_000002_mask.png"]


def test_one_video_of_both(segments, frame, tmp_path):
    with VideoFile(tmp_path / "both.mp4", 10, (40, 96)) as video:
        video.write(np.hstack([vis.grey(frame.thermal_HW), frame.rgb_HW3]))
    (mask,) = segments(tmp_path / "both.mp4", rgb_half="right", save=["mask"])
    assert cv2.imread(str(mask), -1).shape == SIZE


def test_videos_that_do_not_go_together(segments, videos, pairs):
    assert "expected --thermal with the video" in error_of(lambda: segments(videos[0]), ConfigError)
    assert "is a video and" in error_of(lambda: segments(videos[0], pairs[1] / "a.png"), ConfigError)
    both = error_of(lambda: segments(*videos, rgb_half="left"), ConfigError)
    assert "expected --thermal or --rgb-half, and not both" in both


def test_large_images_in_tiles(segments, pairs, tmp_path):
    from mdg.commands.infer import tiles

    assert tiles(None) == [] and tiles(32) == ["eval.mode=slide", "eval.window=[32, 32]"]
    assert len(segments(*pairs, opts=tiles(32))) == 5
