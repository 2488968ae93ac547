"""Videos: every frame is segmented once, in order, and what is missing is said."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from mdg.data.reading.video import Video, VideoFile
from mdg.errors import DataError
from mdg.options.files import PairOptions
from mdg.web.moving import segment_video

SIZE = (48, 64)


def write(file, frames, size=SIZE, rate=10.0):
    with VideoFile(file, rate, size) as video:
        for frame in frames:
            video.write(frame)
    return str(file)


@pytest.fixture
def videos(tmp_path):
    """RGB, thermal, and both side by side: six frames."""
    rng = np.random.default_rng(0)
    colour = [cv2.resize(rng.integers(0, 256, (3, 4, 3), np.uint8), SIZE[::-1]) for _ in range(6)]
    heat = [np.repeat(np.full((*SIZE, 1), 30 * k, np.uint8), 3, axis=2) for k in range(6)]
    both = [np.hstack(pair) for pair in zip(colour, heat, strict=True)]
    return (
        write(tmp_path / "colour.mp4", colour),
        write(tmp_path / "heat.mp4", heat),
        write(tmp_path / "both.mp4", both, (48, 128)),
    )


def run(tiny, tmp_path, *way, most=100, every=1):
    room = tmp_path / "room"
    counts = []
    for state in segment_video(tiny, *way, PairOptions(), room, "clip", most=most, every=every):
        counts.append(state.done)
    return state, counts


@pytest.mark.parametrize("layout", ["files", "left"])
def test_a_video_becomes_one(tiny, videos, tmp_path, layout):
    way = (videos[0], videos[1]) if layout == "files" else (videos[2], None)
    state, counts = run(tiny, tmp_path, *way, layout)
    assert counts == [1, 2, 3, 4, 5, 6, 6] and state.total == 6 and state.note == ""
    assert [file.name for file in state.files] == ["clip.webm", "clip_areas.jsonl"]
    lines = [json.loads(line) for line in state.files[1].read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(6))
    for name, share in state.areas.items():
        assert share == pytest.approx(np.mean([line["areas"][name] for line in lines]), abs=1e-5)
    assert sum(state.areas.values()) == pytest.approx(1)
    with Video(state.files[0]) as result:
        frames = list(result)
    assert len(frames) == 6 and result.rate == pytest.approx(10, abs=0.1)
    assert frames[0].shape[1] == SIZE[1] and frames[0].shape[0] > SIZE[0], "with the legend below"


def test_frames_are_left_out_and_limited(tiny, videos, tmp_path):
    state, counts = run(tiny, tmp_path, *videos[:2], "files", every=2)
    frames = [json.loads(line)["frame"] for line in state.files[1].read_text().splitlines()]
    assert state.done == 3 and state.total == 3 and frames == [0, 2, 4] and state.note == ""
    state, counts = run(tiny, tmp_path / "limited", *videos[:2], "files", most=2)
    assert counts == [1, 2] and state.total == 2 and state.note.startswith("The first 2 frames were taken")
    state, _ = run(tiny, tmp_path / "just", *videos[:2], "files", most=6)
    assert state.done == 6 and state.note == ""


def test_a_video_that_ends_early_is_said(tiny, videos, tmp_path, monkeypatch):
    original = Video.__init__

    def more(self, source):
        original(self, source)
        self.frames = 60

    monkeypatch.setattr(Video, "__init__", more)
    state, _ = run(tiny, tmp_path, *videos[:2], "files")
    assert state.done == 6 and state.note == "The video ended after 6 of 60 frames; a file may be damaged."


def test_what_cannot_be_used_is_a_sentence_without_the_folder(tiny, videos, tmp_path):
    (tmp_path / "no.mp4").write_text("no video")
    whole = (tmp_path / "colour.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    wide = write(tmp_path / "wide.mp4", [np.zeros((48, 128, 3), np.uint8)] * 3, (48, 128))
    bad = {
        "no.mp4: cannot be opened as a video": (str(tmp_path / "no.mp4"), videos[1], "files"),
        "cut.mp4: cannot be opened as a video": (str(tmp_path / "cut.mp4"), videos[1], "files"),
        "got 0 videos, expected an RGB video and a thermal one": (None, None, "files"),
        "got 1 video, expected an RGB video": (videos[0], None, "files"),
        "got 2 videos, expected one that shows both": (videos[0], videos[1], "left"),
        "colour.mp4: its colours lie": (videos[1], videos[0], "files"),
        "sizes (height x width) differ: RGB is 48x64, the thermal video is 48x128": (videos[0], wide, "files"),
    }
    for expected, way in bad.items():
        with pytest.raises(DataError) as caught:
            run(tiny, tmp_path, *way)
        assert expected in str(caught.value) and str(tmp_path) not in str(caught.value)
