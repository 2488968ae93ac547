"""Videos of two cameras, frame by frame."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from mdg.data.reading.video import Video, VideoFile, frame_pairs, grey, halves, is_live, is_video
from mdg.errors import DataError


def film(file: Path, levels: list[int], rate: float = 10, size: tuple[int, int] = (48, 64)) -> Path:
    """A frame of every grey level."""
    with VideoFile(file, rate, size) as video:
        for level in levels:
            video.write(np.full((*size, 3), level, np.uint8))
    return file


def levels(frames) -> list[int]:
    return [round(float(np.mean(frame)) / 20) for frame in frames]


STEPS = [0, 20, 40, 60, 80, 100, 120, 140]


def test_what_is_a_video():
    assert all(map(is_video, ["0", "12", "rtsp://camera/1", "http://x/stream", "a.mp4", Path("b.MKV")]))
    assert not any(map(is_video, ["a.png", "folder", "4.png", "mp4"]))
    assert is_live("0") and is_live("rtsp://x") and not is_live("a.mp4")


def test_frames_of_a_file(tmp_path):
    with Video(film(tmp_path / "a.mp4", STEPS)) as video:
        assert video.frames == 8 and video.rate == pytest.approx(10) and not video.live
        frames = list(video)
    assert levels(frames) == list(range(8)) and frames[0].shape == (48, 64, 3) and frames[0].dtype == np.uint8


def test_colours_are_in_their_order(tmp_path):
    with VideoFile(tmp_path / "a.mp4", 10, (48, 64)) as video:
        video.write(np.broadcast_to(np.array([250, 10, 10], np.uint8), (48, 64, 3)))
    with Video(tmp_path / "a.mp4") as video:
        red, green, blue = next(iter(video)).mean(axis=(0, 1))
    assert red > 200 and green < 60 and blue < 60


def test_a_pair_of_videos(tmp_path):
    with Video(film(tmp_path / "a.mp4", STEPS)) as rgb, Video(film(tmp_path / "b.mp4", STEPS)) as thermal:
        pairs = list(frame_pairs(rgb, thermal))
    assert levels(colour for colour, _ in pairs) == levels(heat for _, heat in pairs) == list(range(8))
    assert pairs[0][1].shape == (48, 64)


@pytest.mark.parametrize(
    ("rate", "delay", "expected"),
    [
        (5, 0.0, [0, 0, 1, 2, 2, 2, 3, 4]),  # Python rounds halves to even: frame 0.5 is 0, 1.5 is 2
        (20, 0.0, [0, 2, 4, 6]),  # ends with the shorter one
        (10, 0.2, [0, 1, 2, 3, 4, 5]),  # began 0.2 s later: the first two frames have no partner
        (10, -0.3, [3, 4, 5, 6, 7]),
    ],
)
def test_the_thermal_frame_nearest_in_time(tmp_path, rate, delay, expected):
    rgb, thermal = film(tmp_path / "a.mp4", STEPS), film(tmp_path / "b.mp4", STEPS, rate=rate)
    with Video(rgb) as one, Video(thermal) as other:
        pairs = list(frame_pairs(one, other, delay))
    assert levels(heat for _, heat in pairs) == expected
    first = 2 if delay > 0 else 0
    assert levels(colour for colour, _ in pairs) == list(range(first, first + len(expected)))


@pytest.mark.parametrize("half", ["left", "right"])
def test_both_beside_each_other(tmp_path, half):
    with VideoFile(tmp_path / "a.mp4", 10, (48, 128)) as video:
        frame = np.zeros((48, 128, 3), np.uint8)
        frame[:, :64], frame[:, 64:] = 40, 160
        video.write(frame)
    with Video(tmp_path / "a.mp4") as video:
        ((colour, heat),) = halves(video, half)
    assert colour.shape == (48, 64, 3) and heat.shape == (48, 64)
    assert (colour.mean() < 100) == (half == "left") and (heat.mean() < 100) == (half == "right")


def test_grey_behind_an_encoder_and_false_colours():
    rng = np.random.default_rng(0)
    plain = np.repeat(rng.integers(0, 256, (32, 32, 1)), 3, axis=2)
    noisy = np.clip(plain + rng.integers(-3, 4, plain.shape), 0, 255).astype(np.uint8)
    assert np.abs(grey(noisy, "x").astype(int) - plain[..., 0]).max() <= 3
    false = cv2.applyColorMap(plain[..., 0].astype(np.uint8), cv2.COLORMAP_JET)
    with pytest.raises(DataError, match=r"x: its colours lie \d+ levels apart, expected thermal in grey"):
        grey(false, "x")


def test_bad_videos(tmp_path):
    with pytest.raises(DataError, match="no such video"):
        Video(tmp_path / "no.mp4")
    (tmp_path / "bad.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(100))
    with pytest.raises(DataError, match="cannot be opened as a video; it is damaged, or of a kind"):
        Video(tmp_path / "bad.mp4")
    with pytest.raises(DataError, match="camera 97: cannot be opened as a video; is it connected"):
        Video("97")
    with VideoFile(tmp_path / "odd.mp4", 10, (48, 64)) as video:
        video.write(np.zeros((48, 64, 3), np.uint8))
    with Video(tmp_path / "odd.mp4") as video:
        video._capture.read()
        with pytest.raises(DataError, match="no frame can be read from it"):
            list(video)


def test_nothing_is_left_of_a_video_that_was_not_written(tmp_path):
    with VideoFile(tmp_path / "new" / "a.mp4", 10, (48, 64)) as video:
        video.write(np.zeros((48, 64, 3), np.uint8))
        assert not (tmp_path / "new" / "a.mp4").exists()
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.mp4"]
