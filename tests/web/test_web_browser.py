"""The page in a real browser, served by the command as a user starts it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from commands import REPOSITORY, environment

pytest.importorskip("gradio", reason="gradio is an extra")
browsing = pytest.importorskip("playwright.sync_api", reason="playwright is an extra")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
    pytest.mark.skipif(os.name != "posix", reason="signals of POSIX"),
]
PATIENCE = 60  # seconds, of a busy machine


@pytest.fixture(scope="module")
def served(tiny_checkpoint, tmp_path_factory):
    """A server with its address, its process and the folder for temporary files."""
    folder = tmp_path_factory.mktemp("served")
    command = [sys.executable, REPOSITORY / "tools" / "demo_web.py", "--checkpoint", tiny_checkpoint, "--config",
               tiny_checkpoint.with_name("config.yaml"), "--device", "cpu", "--port", "0", "--frames", "5"]  # fmt: skip
    with open(folder / "log.txt", "w") as log:
        server = subprocess.Popen(
            [str(part) for part in command],
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(TMPDIR=str(folder), HTTP_PROXY="http://127.0.0.1:9", HTTPS_PROXY="http://127.0.0.1:9"),
            cwd=folder,
        )
    try:
        yield _address(server, folder / "log.txt"), server, folder
    finally:
        server.kill()
        server.wait()


def _address(server: subprocess.Popen, log: Path) -> str:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and server.poll() is None:
        words = log.read_text().split()
        found = [word for word in words if word.startswith("http://")]
        if found and "ends" in words:
            return found[0]
        time.sleep(0.1)
    raise AssertionError(log.read_text())


@pytest.fixture(scope="module")
def browser():
    with browsing.sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(served, browser):
    """``opened(width)``: the page, all addresses that it asked for, and all errors of its scripts."""
    pages = []

    def at(width: int):
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.set_default_timeout(1000 * PATIENCE)
        asked, errors = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(served[0])
        page.wait_for_selector("#samples .thumbnail-item")
        pages.append(page)
        return page, asked, errors

    yield at
    for page in pages:
        page.close()


def upload(page, box: str, file: Path) -> None:
    page.set_input_files(f"{box} input[type=file]", str(file))
    page.wait_for_selector(f"{box} .file-preview")


def shares(page) -> dict[str, float]:
    rows = page.locator("#areas tbody tr")
    cells = [rows.nth(k) for k in range(rows.count())]
    return {row.locator("th").inner_text().strip(): float(row.locator("td").first.inner_text()) for row in cells}


def test_a_sample_an_opacity_and_a_bad_file(served, opened, tmp_path):
    page, asked, errors = opened(1280)
    assert page.locator("#samples .thumbnail-item").count() == 4
    page.locator("#samples .thumbnail-item").nth(1).click()
    page.wait_for_selector("#areas tbody tr")
    found = shares(page)
    assert sum(found.values()) == pytest.approx(100, abs=0.1) and set(found) <= {
        "unlabeled", "car", "person", "bike", "curve", "car_stop", "guardrail", "color_cone", "bump",
    }  # fmt: skip
    assert list(found.values()) == sorted(found.values(), reverse=True)
    pictures = page.locator("#pictures img")
    left, right = (pictures.nth(k).get_attribute("src") for k in (0, 1))
    assert page.evaluate("document.querySelector('#pictures img').naturalWidth") == 672
    links = page.locator("#files a")
    assert [links.nth(k).get_attribute("download").split("_")[-1] for k in range(4)] == [
        "mask.png", "colour.png", "overlay.png", "probabilities.zip",
    ]  # fmt: skip
    with page.expect_download() as waiting:
        links.nth(0).click()
    mask = np.frombuffer(Path(waiting.value.path()).read_bytes()[:8], np.uint8)
    assert mask.tobytes() == b"\x89PNG\r\n\x1a\n"

    number = page.locator("#opacity input[type=number]")
    number.fill("0.2")
    number.press("Enter")
    page.wait_for_function("before => document.querySelectorAll('#pictures img')[1].src !== before", arg=right)
    assert pictures.nth(0).get_attribute("src") == left, "RGB has no opacity"
    assert shares(page) == found

    (tmp_path / "notes.png").write_text("no picture")
    upload(page, "#rgb", tmp_path / "notes.png")
    upload(page, "#thermal", tmp_path / "notes.png")
    page.click("#segment")
    message = page.locator(".toast-body")
    message.wait_for()
    said = message.inner_text()
    assert "notes.png: not a readable image (10 bytes)" in said and str(served[2]) not in said
    assert "Traceback" not in page.content() and shares(page) == found, "what was shown stays"
    page.locator(".toast-close").click()

    page.locator("#samples .thumbnail-item").nth(0).click()  # the server lives on
    page.wait_for_function("before => document.querySelectorAll('#pictures img')[0].src !== before", arg=left)
    assert {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {
        urlsplit(served[0]).netloc
    }
    assert errors == []


@pytest.mark.slow
@pytest.mark.parametrize("width", [380, 1280])
def test_nothing_is_wider_than_the_window(served, opened, width):
    """Slow: some seconds for every page that is opened."""
    page, asked, errors = opened(width)
    page.locator("#samples .thumbnail-item").nth(2).click()
    page.wait_for_selector("#areas tbody tr")
    for tab in ("A pair", "A video", "About"):
        page.get_by_role("tab", name=tab).click()
        assert page.evaluate("document.documentElement.scrollWidth") == width, tab
    assert "not known" in page.locator(".prose.mdg-about").inner_text()
    assert {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {
        urlsplit(served[0]).netloc
    }
    assert errors == []


@pytest.mark.slow
def test_a_video_plays(opened, tmp_path):
    """Slow: some seconds for every page that is opened."""
    from mdg.data.reading.video import VideoFile

    with VideoFile(tmp_path / "both.mp4", 10.0, (48, 128)) as writer:
        for k in range(7):
            writer.write(np.full((48, 128, 3), 30 * k, np.uint8))
    page, _, errors = opened(380)
    page.get_by_role("tab", name="A video").click()
    upload(page, "#rgb-video", tmp_path / "both.mp4")
    page.locator("#video-layout").get_by_label("side by side, colour left").check()
    page.click("#segment-video")
    page.wait_for_selector("#video-areas tbody tr")
    page.wait_for_function("document.querySelector('#video video')?.readyState >= 2")
    seen = page.evaluate("(v => [v.videoWidth, v.error])(document.querySelector('#video video'))")
    assert seen == [64, None] and errors == []
    assert "The first 5 frames were taken" in page.locator(".toast-body").inner_text()


def test_ctrl_c_ends_it_and_nothing_stays(served):
    """Last: the server is gone then."""
    _, server, folder = served
    assert len(list(folder.glob("mdg-web-*"))) == 1
    server.send_signal(signal.SIGINT)
    assert server.wait(PATIENCE) == 130
    log = (folder / "log.txt").read_text()
    assert log.endswith("demo_web: error: interrupted\n") and "Traceback" not in log
    assert [entry.name for entry in folder.iterdir() if entry.name != "log.txt"] == []
