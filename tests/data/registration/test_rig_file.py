"""Rigs in files, and thermal images warped by them: against OpenCV, by hand, and through lenses."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from mdg.data.registration import geometry
from mdg.data.registration.rig_file import distort, map_views, read_rig, thermal_on_rgb, undistort, write_rig
from mdg.errors import DataError, UserError
from mdg.options.rig import Lens, Rig

SIZE = (60, 80)
LENS = Lens(camera_matrix=((70, 0, 41), (0, 72, 28), (0, 0, 1)), distortion=(-0.25, 0.08, 0.002, -0.001, 0.01))


def rig(matrix=None, **changes) -> Rig:
    rows = np.eye(3).tolist() if matrix is None else np.asarray(matrix).tolist()
    return Rig.model_validate({"thermal_to_rgb": rows, "thermal_size": SIZE, "rgb_size": SIZE, **changes})


def smooth(size=SIZE, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(1, 256, size, np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 2)


def test_a_rig_survives_its_file(tmp_path):
    written = rig(
        geometry.similarity(1.3, 2.0, (5, -3), (40, 30), (40, 30)),
        thermal_lens=LENS,
        model="affine",
        found_by="points",
        pairs=7,
        expected_error=1.25,
    )
    write_rig(tmp_path / "rig.yaml", written)
    assert read_rig(tmp_path / "rig.yaml") == written
    assert "thermal pixel lies in the RGB image" in (tmp_path / "rig.yaml").read_text()


def test_a_changed_file_is_read_again(tmp_path):
    write_rig(tmp_path / "rig.yaml", rig())
    before = read_rig(tmp_path / "rig.yaml")
    write_rig(tmp_path / "rig.yaml", rig(np.diag([2.0, 2, 1])))
    assert read_rig(tmp_path / "rig.yaml") != before


@pytest.mark.parametrize(
    "change, message",
    [
        ({"thermal_to_rgb": [[1, 0, 0], [0, 1, 0]]}, "thermal_to_rgb"),
        ({"thermal_to_rgb": [[1, 0, 0], [2, 0, 0], [0, 0, 1]]}, "expected a matrix that can be inverted"),
        ({"thermal_to_rgb": [[-1, 0, 79], [0, 1, 0], [0, 0, 1]]}, "folds or mirrors the thermal image"),
        ({"thermal_to_rgb": [[1, 0, ".nan"], [0, 1, 0], [0, 0, 1]]}, "thermal_to_rgb.0.2"),
        ({"thermal_size": [0, 80]}, "thermal_size.0"),
        ({"rgb_sise": [60, 80]}, "Did you mean 'rgb_size'"),
        ({"rgb_lens": {"camera_matrix": [[0, 0, 1], [0, 1, 1], [0, 0, 1]], "distortion": [0] * 4}}, "focal lengths"),
        (
            {"rgb_lens": {"camera_matrix": np.eye(3).tolist(), "distortion": [0] * 3}},
            "got 3 coefficients, expected 4, 5",
        ),
    ],
)
def test_what_is_no_rig_is_refused(change, message, tmp_path):
    values = rig().model_dump(mode="json") | change
    (tmp_path / "rig.yaml").write_text(yaml.safe_dump(values).replace("'.nan'", ".nan"))
    with pytest.raises(DataError, match=r"rig\.yaml: ") as caught:
        read_rig(tmp_path / "rig.yaml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"[1, 2]", b"a: [", b"\xff\xfe\x00", b"a: &x [1]\nb: *x", b"!!python/object:os.system {}", b"[" * 100_000],
)
def test_what_is_no_yaml_is_refused(content, tmp_path):
    (tmp_path / "rig.yaml").write_bytes(content)
    with pytest.raises(DataError, match=r"rig\.yaml"):
        read_rig(tmp_path / "rig.yaml")


def test_no_such_rig(tmp_path):
    with pytest.raises(UserError, match=r"nowhere\.yaml: No such file.*check the path"):
        read_rig(tmp_path / "nowhere.yaml")
    with pytest.raises(DataError, match="no regular file"):
        read_rig(tmp_path)


# --- warping -----------------------------------------------------------------------------------------------------


def test_no_map_leaves_an_image_alone():
    image_HW = smooth()
    mapping = map_views(rig(), SIZE, SIZE)
    np.testing.assert_array_equal(thermal_on_rgb(image_HW, mapping), image_HW)
    assert mapping.seen_HW.all()


def test_a_shift_by_hand():
    """Thermal lies two pixels to the right and one down: its first pixel is the third of the second row."""
    image_HW = smooth()
    mapping = map_views(rig([[1, 0, 2], [0, 1, 1], [0, 0, 1]]), SIZE, SIZE)
    warped_HW = thermal_on_rgb(image_HW, mapping)
    np.testing.assert_array_equal(warped_HW[1:, 2:], image_HW[:-1, :-2])
    assert mapping.seen_HW[1:, 2:].all() and mapping.seen_HW.sum() == 59 * 78
    assert not warped_HW[0].any() and not warped_HW[:, :2].any()


@pytest.mark.parametrize("lean", [0.0, 1e-3])
def test_a_warp_is_that_of_opencv(lean):
    matrix = geometry.similarity(1.2, 4.0, (5, -3), (40, 30), (40, 30))
    matrix[2, 0] = lean
    image_HW = smooth()
    mapping = map_views(rig(matrix), SIZE, SIZE)
    expected_HW = cv2.warpPerspective(image_HW, matrix, SIZE[::-1], borderMode=cv2.BORDER_REPLICATE)
    warped_HW = thermal_on_rgb(image_HW, mapping)
    difference = np.abs(warped_HW.astype(int) - expected_HW)[mapping.seen_HW]
    assert mapping.seen_HW.mean() > 0.6 and difference.max() <= 2  # fractions of pixels are rounded to 1/32
    reach_HW = cv2.warpPerspective(np.full(SIZE, 255, np.uint8), matrix, SIZE[::-1])
    assert ((reach_HW == 255) == mapping.seen_HW).mean() > 0.99


def test_a_matrix_of_the_other_sign_is_the_same_map():
    matrix = geometry.similarity(1.2, 4.0, (5, -3), (40, 30), (40, 30))
    one, other = (map_views(rig(sign * matrix), SIZE, SIZE) for sign in (1, -1))
    assert one.seen_HW.any()
    np.testing.assert_array_equal(one.seen_HW, other.seen_HW)


def test_images_in_proportion_are_scaled():
    """Twice the RGB and half the thermal pixels: every other RGB pixel as before, of a thermal image of half the
    detail."""
    matrix = geometry.similarity(1.1, 3.0, (4, 2), (40, 30), (40, 30))
    ramp_HW = np.add.outer(np.arange(60.0), 2 * np.arange(80.0))
    small_HW = cv2.resize(ramp_HW, (40, 30), interpolation=cv2.INTER_AREA).astype(np.uint8)
    known = map_views(rig(matrix), SIZE, SIZE)
    plain = thermal_on_rgb(ramp_HW.astype(np.uint8), known).astype(int)
    mapping = map_views(rig(matrix), (120, 160), (30, 40))
    scaled_HW = cv2.resize(thermal_on_rgb(small_HW, mapping), (80, 60), interpolation=cv2.INTER_AREA)
    both_HW = mapping.seen_HW[::2, ::2] & known.seen_HW
    inside_HW = cv2.erode(both_HW.astype(np.uint8), np.ones((9, 9), np.uint8), borderValue=0) > 0
    assert inside_HW.sum() > 1000 and np.abs(scaled_HW.astype(int) - plain)[inside_HW].max() <= 2


@pytest.mark.parametrize("sizes, part", [(((60, 90), SIZE), "RGB"), ((SIZE, (80, 60)), "thermal")])
def test_other_proportions_are_refused(sizes, part):
    with pytest.raises(DataError, match=rf"the {part} image is \d+x\d+ .*measured on 60x80, .*proportions differ"):
        map_views(rig(), *sizes)


# --- lenses ------------------------------------------------------------------------------------------------------


def test_distortion_by_the_formula():
    """Brown's radial and tangential terms, written out."""
    k1, k2, p1, p2, k3 = LENS.distortion
    x, y = (60 - 41) / 70, (10 - 28) / 72
    square = x * x + y * y
    radial = 1 + k1 * square + k2 * square**2 + k3 * square**3
    moved = (
        x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x),
        y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
    )
    expected = [[70 * moved[0] + 41, 72 * moved[1] + 28]]
    np.testing.assert_allclose(distort(np.array([[60.0, 10.0]]), LENS), expected, atol=1e-9)


def test_undistortion_is_its_inverse():
    points_N2 = geometry.grid(SIZE)
    np.testing.assert_allclose(distort(undistort(points_N2, LENS), LENS), points_N2, atol=1e-4)


def test_equal_lenses_cancel_out():
    mapping = map_views(rig(rgb_lens=LENS, thermal_lens=LENS), SIZE, SIZE)
    image_HW = smooth()
    inner = (slice(3, -3), slice(3, -3))
    difference = thermal_on_rgb(image_HW, mapping).astype(int) - image_HW
    assert mapping.seen_HW[inner].all() and np.abs(difference[inner]).max() <= 1


def test_a_thermal_lens_is_undone_as_opencv_does():
    image_HW = smooth()
    matrix, distortion = np.array(LENS.camera_matrix), np.array(LENS.distortion)
    expected_HW = cv2.undistort(image_HW, matrix, distortion)
    mapping = map_views(rig(thermal_lens=LENS), SIZE, SIZE)
    inside_HW = cv2.erode(mapping.seen_HW.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    difference = np.abs(thermal_on_rgb(image_HW, mapping).astype(int) - expected_HW)
    assert inside_HW.mean() > 0.5 and difference[inside_HW].max() <= 2


def test_the_grid_of_rgb_stays_that_of_its_distorted_image():
    """A thermal camera without distortion beside an RGB camera with: what RGB shows at p lies in thermal at the
    undistorted p."""
    ramp_HW = np.tile(3 * np.arange(80, dtype=np.uint8), (60, 1))
    mapping = map_views(rig(rgb_lens=LENS), SIZE, SIZE)
    warped_HW = thermal_on_rgb(ramp_HW, mapping)
    for y, x in ((30, 20), (10, 60), (45, 50)):
        ((expected, _),) = undistort(np.array([[float(x), float(y)]]), LENS)
        assert warped_HW[y, x] == pytest.approx(3 * expected, abs=1)


def test_maps_are_made_once():
    assert map_views(rig(), SIZE, SIZE) is map_views(rig(), SIZE, SIZE)
    with pytest.raises(ValueError, match="read-only"):
        map_views(rig(), SIZE, SIZE).seen_HW[0, 0] = False


def test_the_path_may_begin_at_home(tmp_path, monkeypatch):
    from mdg.options.files import PairOptions

    monkeypatch.setenv("HOME", str(tmp_path))
    assert PairOptions.model_validate({"align": "~/rig.yaml"}).align.file == Path(tmp_path / "rig.yaml")  # type: ignore
