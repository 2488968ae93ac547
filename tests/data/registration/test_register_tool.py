"""``tools/register.py`` from folders to a rig: by points and by edges, its page, its picture, and its mistakes."""

from __future__ import annotations

import csv
import io

import cv2
import numpy as np
import pytest
from layouts import raw_counts, write_image
from pages import parse

from mdg.commands.register import main
from mdg.data.registration import geometry
from mdg.data.registration.points import COLUMNS, read_points
from mdg.data.registration.rig_file import distort, read_rig, undistort
from mdg.data.registration.run import _straight_image
from mdg.data.synthetic import render_scene
from mdg.options.rig import Lens

RGB, THERMAL = (120, 160), (96, 128)
TRUTH = geometry.similarity(1.3, -2.0, (4, 6), geometry.centre(THERMAL), geometry.centre(RGB))
LENS = Lens(camera_matrix=((110, 0, 63), (0, 110, 49), (0, 0, 1)), distortion=(-0.2, 0.03, 0.0, 0.0, 0.0))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Six pairs of two cameras; thermal of 16 bits, in another size."""
    root = tmp_path_factory.mktemp("recorded")
    for number in range(6):
        scene = render_scene(3, 2 * number, *RGB)
        thermal_HW = cv2.warpPerspective(
            scene.thermal, np.linalg.inv(TRUTH), THERMAL[::-1], borderMode=cv2.BORDER_REPLICATE
        )
        write_image(root / "rgb" / f"{number:02d}.png", scene.rgb)
        write_image(root / "thermal" / f"{number:02d}.tiff", raw_counts(thermal_HW))
    return root


def write_points(file, count: int = 12, lens: Lens | None = None) -> None:
    thermal_N2 = np.random.default_rng(0).uniform((5, 5), (122, 90), (count, 2))
    rgb_N2 = geometry.transform(TRUTH, thermal_N2)
    seen_N2 = thermal_N2 if lens is None else distort(thermal_N2, lens)
    rows = [
        f"{number % 6:02d}," + ",".join(f"{v:.4f}" for v in (*rgb_N2[number], *seen_N2[number]))
        for number in range(count)
    ]
    file.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")


def register(recorded, *arguments: object) -> None:
    main(["--rgb", str(recorded / "rgb"), "--thermal", str(recorded / "thermal"), *map(str, arguments)])


def refused(recorded, capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stop:
        register(recorded, *arguments)
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.startswith("register: error: ") and message.count("\n") == 1
    return message


def test_from_edges(recorded, tmp_path, capsys):
    register(recorded, "--out", tmp_path / "rig.yaml", "--preview", tmp_path / "overlay.png")
    rig = read_rig(tmp_path / "rig.yaml")
    assert geometry.distance(TRUTH, np.array(rig.thermal_to_rgb), THERMAL, RGB) < 2
    assert (rig.thermal_size, rig.rgb_size, rig.pairs, rig.found_by) == (THERMAL, RGB, 6, "edges")
    printed = capsys.readouterr().out
    assert "6 pairs: RGB 120x160, thermal 96x128" in printed and f"expected error: {rig.expected_error:.1f}" in printed
    assert "1.3" in printed.partition("thermal to RGB: ")[2][:6] and "-2." in printed.partition("turned by ")[2][:4]
    picture = cv2.imread(str(tmp_path / "overlay.png"))
    assert picture.shape[1] == 2 * 640 and picture.shape[0] > 4 * 480


def test_from_points(recorded, tmp_path, capsys):
    write_points(tmp_path / "points.csv")
    with open(tmp_path / "points.csv", "a") as stream:
        stream.write("03,10,10,100,80\n")
    register(recorded, "--points", tmp_path / "points.csv", "--out", tmp_path / "rig.yaml", "--model", "similarity")
    rig = read_rig(tmp_path / "rig.yaml")
    assert geometry.distance(TRUTH, np.array(rig.thermal_to_rgb), THERMAL, RGB) < 0.01
    assert rig.found_by == "points" and rig.model == "similarity" and rig.expected_error < 0.01
    printed = capsys.readouterr().out
    assert printed.count("left out as a mistake") == 1 and "03: 10.0, 10.0, 100.0, 80.0  <- left out" in printed


def test_points_through_a_lens(recorded, tmp_path):
    """What was clicked is where the lens shows it; the matrix is that between images without distortion."""
    write_points(tmp_path / "points.csv", lens=LENS)
    storage = cv2.FileStorage(str(tmp_path / "lens.yml"), cv2.FILE_STORAGE_WRITE)
    storage.write("camera_matrix", np.array(LENS.camera_matrix))
    storage.write("distortion_coefficients", np.array(LENS.distortion))
    storage.release()
    calibration = ("--thermal-calibration", tmp_path / "lens.yml")
    register(recorded, "--points", tmp_path / "points.csv", "--out", tmp_path / "rig.yaml", *calibration)
    rig = read_rig(tmp_path / "rig.yaml")
    assert rig.thermal_lens == LENS and rig.rgb_lens is None
    assert geometry.distance(TRUTH, np.array(rig.thermal_to_rgb), THERMAL, RGB) < 0.01
    register(recorded, "--points", tmp_path / "points.csv", "--out", tmp_path / "without.yaml")
    assert geometry.distance(TRUTH, np.array(read_rig(tmp_path / "without.yaml").thermal_to_rgb), THERMAL, RGB) > 0.2


def test_images_are_straightened_as_points_are():
    """A spot that the lens shows at p lies in the straightened image where the point p goes."""
    for x, y in ((20, 15), (100, 80), (64, 10)):
        spot_HW = np.zeros(THERMAL, np.uint8)
        cv2.circle(spot_HW, (x, y), 2, 255, -1)
        straight_HW = _straight_image(spot_HW, LENS).astype(np.float64)
        ys, xs = np.mgrid[: THERMAL[0], : THERMAL[1]]
        found = [(straight_HW * axis).sum() / straight_HW.sum() for axis in (xs, ys)]
        np.testing.assert_allclose(found, undistort(np.array([[float(x), float(y)]]), LENS)[0], atol=0.2)


def test_the_page_for_clicks_needs_nothing_but_itself(recorded, tmp_path, capsys):
    register(recorded, "--click", tmp_path / "page.html")
    assert "with 6 pairs" in capsys.readouterr().out
    text = (tmp_path / "page.html").read_text()
    page = parse(text)
    assert "http" not in text.replace("http-equiv", "") and text.count("data:image/jpeg;base64,") == 12
    sizes = {key: value for key, value in page.attributes if key.endswith(("-width", "-height"))}
    assert sizes == {
        "data-rgb-width": "160", "data-rgb-height": "120", "data-thermal-width": "128", "data-thermal-height": "96",
    }  # fmt: skip
    assert ",".join(COLUMNS) in dict(page.attributes)["data-columns"]


def test_names_in_the_page_are_escaped(tmp_path):
    from mdg.data.registration.page import write_click_page

    rgb, thermal = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    write_click_page(tmp_path / "page.html", {'"><script>': rgb}, {'"><script>': thermal})
    assert '"><script>' not in (tmp_path / "page.html").read_text()


def test_what_the_page_saves_is_read(tmp_path):
    """Rows as its script writes them; names with commas and quotes are quoted."""
    rows = io.StringIO()
    csv.writer(rows, lineterminator="\n").writerows([COLUMNS, ['a,"b"', 1.5, 2, 3, 4]])
    (tmp_path / "points.csv").write_text(rows.getvalue())
    assert read_points(tmp_path / "points.csv").pairs == ['a,"b"']


def test_mistakes_are_one_message(recorded, tmp_path, capsys):
    out = tmp_path / "rig.yaml"
    assert "name the rig to write (--out rig.yaml), or a page" in refused(recorded, capsys)
    assert "expected a name that ends in .yaml" in refused(recorded, capsys, "--out", tmp_path / "rig.txt")
    assert "No such file" in refused(recorded, capsys, "--out", out, "--points", tmp_path / "none.csv")
    assert "No such file" in refused(recorded, capsys, "--out", out, "--rgb-calibration", tmp_path / "none.yml")
    (tmp_path / "few.csv").write_text(f"{','.join(COLUMNS)}\n00,1,2,3,4\n")
    assert "got 1 points, expected at least 6" in refused(
        recorded, capsys, "--out", out, "--points", tmp_path / "few.csv"
    )
    assert not out.exists()


def test_too_few_pairs_and_sizes_that_change(recorded, tmp_path, capsys):
    for number in range(2):
        write_image(tmp_path / "rgb" / f"{number}.png", np.zeros((40, 50, 3), np.uint8))
        write_image(tmp_path / "thermal" / f"{number}.png", np.zeros((40, 50), np.uint8))
    out = ("--out", tmp_path / "rig.yaml")
    assert "got 2 pair(s), expected at least 3" in refused(tmp_path, capsys, *out)
    write_image(tmp_path / "thermal" / "1.png", np.zeros((40, 60), np.uint8))
    assert "0 is 40x50 and 1 is 40x60" in refused(tmp_path, capsys, *out)
