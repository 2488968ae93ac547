"""What happens when somebody touches the page, without a browser."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pages import parse

gr = pytest.importorskip("gradio", reason="gradio is an extra")

from mdg.data.reading.video import VideoFile  # noqa: E402
from mdg.errors import DataError  # noqa: E402
from mdg.web import actions as acting  # noqa: E402
from mdg.web.about import describe  # noqa: E402
from mdg.web.actions import Actions, bar_page, clear, guarded, look, repaint, sentence  # noqa: E402
from mdg.web.page import build  # noqa: E402
from mdg.web.samples import make_samples  # noqa: E402

VIEW = (0.6, "RGB", "overlay")
AS_TRAINED = ("files", "", "", False)


@pytest.fixture
def actions(tiny, tmp_path):
    (tmp_path / "rooms").mkdir()
    return Actions(tiny, tmp_path / "rooms", 3)


@pytest.fixture
def told(monkeypatch):
    """The messages that the page showed."""
    messages: list[str] = []
    for kind in ("Warning", "Info"):
        monkeypatch.setattr(acting.gr, kind, lambda message, duration=None: messages.append(message))
    return messages


@pytest.fixture
def files(pair, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), pair[0][..., ::-1])
    cv2.imwrite(str(tmp_path / "b.png"), pair[1])
    return str(tmp_path / "a.png"), str(tmp_path / "b.png")


def rooms(actions) -> list[Path]:
    return sorted(actions.folder.iterdir())


def test_files_become_a_result(actions, tiny, files, pair):
    shown, pictures, areas, offered = actions.files(*files, *AS_TRAINED, None, *VIEW)
    expected = tiny.predict([pair])[0]
    assert np.array_equal(shown.prediction.mask, expected.mask)
    assert np.array_equal(pictures[0], shown.look("RGB")) and np.array_equal(pictures[1], shown.look("overlay", 0.6))
    assert [Path(file).name for file in offered["value"]][:2] == ["a_mask.png", "a_colour.png"] and offered["visible"]
    assert areas.startswith("<table") or "<table" in areas
    assert rooms(actions) == [shown.folder]


def test_the_next_result_takes_the_room_of_the_one_before(actions, files):
    first = actions.files(*files, *AS_TRAINED, None, *VIEW)[0]
    second = actions.sample(make_samples(actions.predictor.config)[2], first, *VIEW)[0]
    assert rooms(actions) == [second.folder] and second.files[0].name.startswith("scene_7500")
    clear(second)  # what Gradio calls an hour later
    clear(None)
    assert rooms(actions) == []


def test_another_look_or_opacity_asks_no_network(actions, files, monkeypatch):
    shown = actions.files(*files, *AS_TRAINED, None, *VIEW)[0]
    monkeypatch.setattr(actions.predictor, "predict", None)
    before = shown.files[2].read_bytes()
    left, right = look(shown, 0.6, "mask", "thermal")
    assert np.array_equal(left, shown.look("mask")) and np.array_equal(right, shown.look("thermal"))
    pictures, offered = repaint(shown, 0.2, "overlay", "RGB")
    assert np.array_equal(pictures[0], shown.look("overlay", 0.2)) and shown.files[2].read_bytes() != before
    assert len(offered["value"]) == len(shown.files)
    assert look(None, *VIEW) == repaint(None, *VIEW) == gr.skip(), "before the first result"


def test_a_mistake_is_told_and_changes_nothing(actions, files, told, tmp_path):
    (tmp_path / "<i>.png").write_text("no picture")
    kept = actions.files(*files, *AS_TRAINED, None, *VIEW)[0]
    assert guarded(actions.files)(str(tmp_path / "<i>.png"), files[1], *AS_TRAINED, kept, *VIEW) == gr.skip()
    (message,) = told
    assert message.startswith("&lt;i&gt;.png: not a readable image") and rooms(actions) == [kept.folder]
    assert guarded(actions.files)(*files, "files", "{mode: nonsense}", "", False, kept, *VIEW) == gr.skip()
    assert told[1].startswith("Thermal values: mode: got ")


def test_what_nobody_foresaw_is_a_sentence_too(actions, files, told, monkeypatch, tmp_path):
    monkeypatch.setattr(acting, "write_report", lambda program, error: tmp_path / f"{program}.txt")

    def broken(*_, **__):
        raise ZeroDivisionError("secret path /etc")

    monkeypatch.setattr(actions.predictor, "predict", broken)
    assert guarded(actions.files)(*files, *AS_TRAINED, None, *VIEW) == gr.skip()
    assert told == ["unforeseen ZeroDivisionError; this is a fault of mdg, and the server&#x27;s log says more"]
    assert rooms(actions) == [], "an empty folder would stay until the end"
    assert "not enough memory for images of this size" in sentence(RuntimeError("CUDA out of memory. Tried"))
    assert sentence(DataError("a < b")) == "a &lt; b"


@pytest.fixture
def video(tmp_path):
    file = tmp_path / "clip.mp4"
    with VideoFile(file, 10.0, (48, 128)) as writer:
        for k in range(5):
            writer.write(np.full((48, 128, 3), 40 * k, np.uint8))
    return str(file)


def test_a_video_in_steps(actions, video, told):
    steps = list(actions.video(video, None, "left", 1, "", "", False, None))
    assert [step[1] for step in steps] == [bar_page(1, 3), bar_page(2, 3), ""]
    folder, _, result, areas, offered = steps[-1]
    assert rooms(actions) == [folder] and Path(result).name == "clip.webm" and "mean of 3 frames" in areas
    assert [Path(file).name for file in offered["value"]] == ["clip.webm", "clip_areas.jsonl"]
    assert told == ["The first 3 frames were taken; the page takes no more, tools/infer_mm.py does."]


def test_a_video_that_is_stopped_leaves_nothing(actions, video):
    steps = actions.video(video, None, "left", 1, "", "", False, None)
    next(steps)
    assert len(rooms(actions)) == 1
    steps.close()
    assert rooms(actions) == []


def test_a_video_that_cannot_be_used_keeps_the_old_one(actions, video, told, tmp_path):
    old = list(actions.video(video, None, "left", 1, "", "", False, None))[-1][0]
    told.clear()
    (tmp_path / "cut.mp4").write_bytes(Path(video).read_bytes()[:300])
    steps = list(actions.video(str(tmp_path / "cut.mp4"), None, "left", 1, "", "", False, old))
    assert steps == [[gr.skip(), "", gr.skip(), gr.skip(), gr.skip()]] and rooms(actions) == [old]
    assert told[0].startswith("cut.mp4: cannot be opened as a video") and len(told) == 1


def test_the_bar():
    page = parse(bar_page(3, 10))
    assert ("value", "3") in page.attributes and ("max", "10") in page.attributes
    assert parse(bar_page(3, None)).attributes == [("class", "mdg-bar")]


def test_the_page_names_no_other_host_and_no_divergence_where_there_is_none(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    samples, about = make_samples(tiny.config), describe(tiny)
    page = build(tiny, samples, about, tmp_path, 7)
    parts = page.get_config_file()["components"]
    choices = {part["props"].get("elem_id"): part["props"].get("choices") for part in parts}
    assert [name for name, _ in choices["left"]] == ["RGB", "thermal", "overlay", "mask"]
    assert "Up to 7 frames are taken." in str(parts)
    shown = str([part["props"] for part in parts])
    assert "http:" not in shown and "https:" not in shown
    assert not any(call.get("api_visibility") == "public" for call in page.get_config_file()["dependencies"])


def test_a_network_of_other_images_says_so(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    about = describe(tiny)._replace(dataset="MFNet", trained_on="MFNet train")
    page = build(tiny, make_samples(tiny.config), about, tmp_path, 7)
    assert "This network learnt from MFNet, which look otherwise" in str(page.get_config_file()["components"])
