"""Thermal images: every depth and scaling against values computed by hand, and what is no thermal image is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from pydantic import ValidationError

from mdg.data.base import Frame
from mdg.data.datasets.mfnet import MFNet
from mdg.data.reading.thermal import GREY_TOLERANCE, read_raw_thermal, read_thermal, scale_thermal
from mdg.errors import FLAGS, DataError
from mdg.options.datasets import MFNetOptions
from mdg.options.files import AS_STORED, ThermalScaling

FILE = Path("folder/frame.png")
# Pseudo-colours that hold no three equal channels over a ramp, as cameras and viewers export them.
COLORMAPS = [cv2.COLORMAP_JET, cv2.COLORMAP_HOT, cv2.COLORMAP_INFERNO, cv2.COLORMAP_BONE, cv2.COLORMAP_TURBO]


def error_of(action) -> str:
    with pytest.raises(DataError) as caught:
        action()
    return str(caught.value)


def write(file: Path, image: np.ndarray, *flags: int) -> Path:
    assert cv2.imwrite(str(file), image, flags)
    return file


def scaled(values, dtype, **scaling) -> list[int]:
    raw_HW = np.array([values], dtype)
    before = raw_HW.copy()
    result_HW = scale_thermal(raw_HW, ThermalScaling(**scaling), FILE)
    assert result_HW.dtype == np.uint8 and result_HW.shape == raw_HW.shape
    np.testing.assert_array_equal(raw_HW, before)
    return result_HW[0].tolist()


RAMP_HW = np.arange(256, dtype=np.uint8).reshape(16, 16)


# --- scaling, by hand --------------------------------------------------------------------------------------------


def test_fixed_of_16_bits_rounds_to_the_nearest_and_clips():
    # A level is 4 counts: 1002 is 0.5 and 1510 is 127.5, and halves go up.
    raw = [0, 999, 1000, 1001, 1002, 1005, 1006, 1510, 2018, 2020, 2021, 65535]
    levels = [0, 0, 0, 0, 1, 1, 2, 128, 255, 255, 255, 255]
    assert scaled(raw, np.uint16, mode="fixed", range=[1000, 2020]) == levels


def test_fixed_of_temperatures_below_zero():
    assert scaled([-30, -20, 0, 10.5, 31, 40], np.float32, mode="fixed", range=[-20, 31]) == [0, 0, 100, 153, 255, 255]
    assert scaled([-30, -20, 0, 31, 40], np.int16, mode="fixed", range=[-20, 31]) == [0, 0, 100, 255, 255]


def test_fixed_of_8_bits_does_not_wrap():
    assert scaled([0, 30, 50, 51, 101, 200], np.uint8, mode="fixed", range=[50, 101]) == [0, 0, 0, 5, 255, 255]


def test_fixed_keeps_a_temperature_in_every_image():
    scaling = {"mode": "fixed", "range": [0, 510]}
    assert scaled([100, 200], np.uint16, **scaling)[0] == scaled([100, 510], np.uint16, **scaling)[0] == 50


def test_minmax_stretches_from_extreme_to_extreme():
    assert scaled([20.0, 20.25, 20.5], np.float32, mode="minmax") == [0, 128, 255]
    assert scaled([7000, 7001, 7051], np.uint16, mode="minmax") == [0, 5, 255]
    assert scaled([3, 4, 54], np.uint8, mode="minmax") == [0, 5, 255]


def test_percentile_interpolates_and_clips():
    # Of 0, 10, 20, 30 the quartiles are 7.5 and 22.5: a level is 1/17, and 2.5 * 17 is 42.5.
    values = [30, 0, 20, 10]
    assert scaled(values, np.uint16, mode="percentile", percentiles=[25, 75]) == [255, 0, 213, 43]
    ramp = list(range(101))
    result = scaled(ramp, np.float32, mode="percentile", percentiles=[10, 90])
    assert [result[k] for k in (0, 10, 11, 50, 90, 100)] == [0, 0, 3, 128, 255, 255]


def test_default_percentiles_leave_one_hot_pixel_out():
    values = np.arange(1000, 3000)
    values[-1] = 60000
    assert scaled(values, np.uint16, mode="percentile")[1000] == 128


@pytest.mark.parametrize("value, dtype", [(0, np.uint8), (7, np.uint8), (29315, np.uint16), (300.15, np.float32)])
@pytest.mark.parametrize("mode", ["minmax", "percentile"])
def test_constant_image_is_black(value, dtype, mode):
    assert scaled([value] * 5, dtype, mode=mode) == [0] * 5
    assert scaled([value] * 5, dtype, mode=mode, invert=True) == [255] * 5


def test_constant_image_keeps_its_temperature_under_fixed():
    assert scaled([300] * 3, np.uint16, mode="fixed", range=[0, 510]) == [150] * 3


def test_a_small_hot_thing_survives_percentiles_that_coincide():
    values = [7000] * 996 + [6999, 7001, 9000, 9001]
    assert scaled(values, np.uint16, mode="percentile")[-5:] == [0, 0, 255, 255, 255]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_match_gives_every_image_the_same_quantiles(dtype):
    """Of three images whose values are increasing curves of one another: whatever the camera did, the result is one."""
    wanted = [10.0, 20.0, 60.0, 70.0, 200.0]
    ranks = np.random.default_rng(0).permutation(101)
    results = [
        scaled(curve(ranks), dtype, mode="match", quantiles=wanted)
        for curve in (lambda r: r, lambda r: 2 * r + 50, lambda r: r * r / 50)
    ]
    assert [results[0][list(ranks).index(k)] for k in (0, 25, 50, 75, 100)] == wanted
    assert results[0] == results[1]
    by_rank = np.argsort(ranks)
    assert max(abs(np.subtract(results[2], results[0]))) <= 12, "linear between the quantiles of the image"
    assert (np.diff(np.array(results[2], int)[by_rank]) >= 0).all()


def test_match_turns_black_hot_images_first():
    ramp, wanted = list(range(101)), [0.0, 10.0, 255.0]
    straight = scaled(ramp, np.uint8, mode="match", quantiles=wanted)
    assert scaled([100 - value for value in ramp], np.uint8, mode="match", quantiles=wanted, invert=True) == straight
    assert straight[0] == 0 and straight[50] == 10 and straight[100] == 255


def test_match_of_many_equal_pixels():
    """Half of the pixels have one value: it gets the mean of what lies at those shares."""
    values = [7] * 60 + list(range(8, 48))
    result = scaled(values, np.uint8, mode="match", quantiles=[0, 10, 20, 100, 200])
    assert result[0] == 10 and result[-1] == 200
    assert scaled([7] * 5, np.uint16, mode="match", quantiles=[0, 30, 90]) == [40] * 5


def test_none_is_the_image_itself():
    assert scale_thermal(RAMP_HW, AS_STORED, FILE) is RAMP_HW


def test_invert_turns_black_hot_around():
    assert scaled([0, 1, 200, 255], np.uint8, invert=True) == [255, 254, 55, 0]
    assert scaled([1000, 1002, 2020], np.uint16, mode="fixed", range=[1000, 2020], invert=True) == [255, 254, 0]


@pytest.mark.parametrize(
    "raw_HW, shown",
    [(np.array([[7000, 9123]], np.uint16), "uint16 values 7000..9123"), (np.array([[-1.5, 20]], "f4"), "-1.5..20")],
)
def test_more_than_8_bits_without_scaling_says_what_to_set(raw_HW, shown):
    message = error_of(lambda: scale_thermal(raw_HW, AS_STORED, FILE))
    for part in (str(FILE), shown, "data.thermal_scaling: {mode: fixed, range: [LOW, HIGH]}", "percentile", "minmax"):
        assert part in message


# --- degrees -----------------------------------------------------------------------------------------------------

# A level of [-10, 41] degrees is 0.2 of them: 10.3 is 101.5, and halves go up.
CELSIUS = [-60, -10, -9.8, 0, 10.4, 41, 100]
LEVELS = [0, 0, 1, 50, 102, 255, 255]


@pytest.mark.parametrize(
    "unit, of_celsius, dtype",
    [
        ("auto", lambda c: c, np.float32),
        ("auto", lambda c: 100 * c + 27315, np.uint16),
        ("celsius", lambda c: c, np.float32),
        ("kelvin", lambda c: c + 273.15, np.float32),
        ("centikelvin", lambda c: 100 * c + 27315, np.uint16),
        ("centikelvin", lambda c: 100 * c + 27315, np.float32),
        ("decikelvin", lambda c: 10 * c + 2731.5, np.float32),
    ],
)
def test_degrees_become_the_same_grey_in_every_unit(unit, of_celsius, dtype):
    raw = np.round(of_celsius(np.array(CELSIUS, np.float64)), 6)
    assert scaled(raw, dtype, mode="celsius", range=[-10, 41], unit=unit) == LEVELS
    inverted = [255 - level for level in LEVELS]
    assert scaled(raw, dtype, mode="celsius", range=[-10, 41], unit=unit, invert=True) == inverted


def test_degrees_in_whole_decikelvin_and_kelvin():
    # 2731 is -0.05 degrees: 49.75 levels above -10; 300 kelvin are 26.85 degrees: 184.25.
    assert scaled([2631, 2731, 3142], np.uint16, mode="celsius", range=[-10, 41], unit="decikelvin") == [0, 50, 255]
    assert scaled([263, 300, 315], np.uint16, mode="celsius", range=[-10, 41], unit="kelvin") == [0, 184, 255]


def test_centikelvin_are_a_fixed_range_of_counts():
    raw_HW = np.random.default_rng(0).integers(25000, 33000, (40, 50)).astype(np.uint16)
    by_degrees_HW = scale_thermal(raw_HW, ThermalScaling(mode="celsius", range=(-10, 45)), FILE)
    by_counts_HW = scale_thermal(raw_HW, ThermalScaling(mode="fixed", range=(26315, 31815)), FILE)
    np.testing.assert_array_equal(by_degrees_HW, by_counts_HW)


def celsius_error(values, dtype, **options) -> str:
    scaling = ThermalScaling(mode="celsius", range=(-10, 45), **options)
    return error_of(lambda: scale_thermal(np.array([values], dtype), scaling, FILE))


def test_8_bits_hold_no_temperatures():
    message = celsius_error([20, 30, 40], np.uint8)
    for part in (str(FILE), "got 8 bits, which hold no temperatures", "data.thermal_scaling: {mode: none}"):
        assert part in message


@pytest.mark.parametrize(
    "values, dtype, options, parts",
    [
        ([7000, 7500, 8000], np.uint16, {}, ["median 7500, as centikelvin -198.", "unit: decikelvin} makes it 476."]),
        ([2900, 2950, 3000], np.uint16, {}, ["as centikelvin -243.", "unit: decikelvin} makes it 21."]),
        ([290, 295, 300], np.uint16, {}, ["unit: kelvin} makes it 21.9. ", "unit: celsius} makes it 295.0. "]),
        ([29000, 29500], np.float32, {}, ["as celsius 29250.0 degrees", "unit: centikelvin} makes it 19."]),
        ([20, 21, 22], np.float32, {"unit": "kelvin"}, ["as kelvin -252.1", "unit: celsius} makes it 21.0"]),
        ([-70, -70, 30], np.float32, {}, ["as celsius -70.0 degrees Celsius; expected -60..700. If they are counts"]),
        ([29500] * 3, np.uint16, {"unit": "celsius"}, ["as celsius 29500.0", "unit: centikelvin} makes it 21.9"]),
        ([16000] * 3, np.uint16, {}, ["-113.1 degrees", "set mode: fixed with a range of counts, or mode: percentile"]),
    ],
)
def test_numbers_that_can_hardly_be_temperatures_are_refused(values, dtype, options, parts):
    message = celsius_error(values, dtype, **options)
    for part in [f"{FILE}: got {np.dtype(dtype)} values", *parts]:
        assert part in message


@pytest.mark.parametrize("celsius, inside", [(-60, True), (0, True), (700, True), (-60.1, False), (700.1, False)])
@pytest.mark.parametrize("unit, per_degree, zero", [("celsius", 1, 0), ("decikelvin", 10, 2731.5)])
def test_the_median_may_be_anything_plausible(celsius, inside, unit, per_degree, zero):
    values = [per_degree * celsius + zero] * 3 + [-99, 9e9]
    if inside:
        assert scaled(values, np.float32, mode="celsius", range=[-61, 4000], unit=unit)[-2:] == [0, 255]
    else:
        assert "expected -60..700" in celsius_error(values, np.float32, unit=unit)


def test_kelvin_in_floating_point_must_be_said():
    message = celsius_error([290.15, 293.15, 296.15], np.float32)
    assert "median 293.15, which lies outside the range [-10, 45] as degrees Celsius and within it as kelvin" in message
    assert "{mode: celsius, range: [-10, 45], unit: kelvin} makes it 20.0, and unit: celsius leaves it 293.1" in message
    assert scaled([263.15, 293.15, 308.15], np.float32, mode="celsius", range=[-10, 41], unit="kelvin") == [0, 150, 225]
    assert scaled([290.15, 293.15], np.float32, mode="celsius", range=[-10, 45], unit="celsius") == [255, 255]


def test_messages_name_flags_where_there_is_no_configuration():
    scaling = ThermalScaling(mode="celsius", range=(-10, 45))
    message = error_of(lambda: scale_thermal(np.array([[295, 296]], np.uint16), scaling, FILE, FLAGS))
    assert "--thermal-scaling '{mode: celsius, range: [-10, 45], unit: kelvin}' makes it 22.4" in message
    assert "data." not in message


@pytest.mark.parametrize("dtype, of_celsius", [(np.float32, lambda c: c), (np.uint16, lambda c: 100 * c + 27315)])
def test_a_file_of_temperatures_is_read_in_degrees(tmp_path, dtype, of_celsius):
    celsius_HW = np.linspace(-10, 41, 256).reshape(16, 16)
    file = write(tmp_path / "x.tiff", np.round(of_celsius(celsius_HW), 2).astype(dtype))
    np.testing.assert_array_equal(read_thermal(file, ThermalScaling(mode="celsius", range=(-10, 41))), RAMP_HW)


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mode": "fixed"}, "mode 'fixed' and range None"),
        (
            {"mode": "minmax", "range": [0, 1]},
            "expected a range with `mode: fixed` or `mode: celsius` and with no other",
        ),
        ({"mode": "celsius"}, "mode 'celsius' and range None"),
        ({"mode": "celsius", "range": [45, -10]}, r"range \[45.0, -10.0\], expected \[lowest, highest\]"),
        (
            {"mode": "celsius", "range": [26315, 31815]},
            "expected degrees Celsius, such as .* raw values are the range of",
        ),
        ({"mode": "celsius", "range": [-300, 45]}, "expected degrees Celsius"),
        ({"mode": "celsius", "range": [-10, 45], "unit": "fahrenheit"}, "'celsius', 'kelvin', 'centikelvin'"),
        ({"mode": "fixed", "range": [0, 1], "unit": "kelvin"}, "a unit with `mode: celsius` only"),
        ({"range": [0, 1]}, "mode 'none' and range"),
        ({"mode": "fixed", "range": [5, 5]}, r"range \[5.0, 5.0\], expected \[lowest, highest\]"),
        ({"mode": "fixed", "range": [6, 5]}, "lowest, highest"),
        ({"mode": "fixed", "range": [0, float("inf")]}, "finite"),
        ({"mode": "fixed", "range": [float("nan"), 1]}, "finite"),
        ({"mode": "percentile", "percentiles": [99, 1]}, "0 <= lower < upper <= 100"),
        ({"mode": "percentile", "percentiles": [-1, 99]}, "0 <= lower < upper <= 100"),
        ({"mode": "percentile", "percentiles": [1, 101]}, "0 <= lower < upper <= 100"),
        ({"mode": "clahe"}, "'none', 'fixed', 'celsius', 'percentile', 'minmax' or 'match'"),
        ({"mode": "match"}, "mode 'match' without quantiles, expected quantiles with `mode: match`"),
        ({"quantiles": [0, 255]}, "mode 'none' and quantiles"),
        ({"mode": "match", "quantiles": [0, 9, 8]}, "from the darkest to the brightest"),
        ({"mode": "match", "quantiles": [0, 256]}, "less than or equal to 255"),
        ({"mode": "match", "quantiles": [-1, 255]}, "greater than or equal to 0"),
        ({"mode": "match", "quantiles": [0]}, "at least 2"),
        ({"inverted": True}, "Did you mean 'invert'"),
    ],
)
def test_options_that_cannot_be_meant(options, message):
    with pytest.raises(ValidationError, match=message):
        ThermalScaling(**options)


@pytest.mark.parametrize(
    "options, text",
    [
        ({}, None),
        ({"invert": True}, "thermal inverted"),
        ({"mode": "fixed", "range": [7000, 9500]}, "thermal [7000.0, 9500.0] to 8 bits"),
        ({"mode": "celsius", "range": [-10, 45]}, "thermal [-10.0, 45.0] degrees Celsius to 8 bits"),
        (
            {"mode": "celsius", "range": [-10, 45], "unit": "kelvin", "invert": True},
            "thermal [-10.0, 45.0] degrees Celsius to 8 bits, raw values in kelvin, thermal inverted",
        ),
        ({"mode": "percentile"}, "thermal percentiles [1.0, 99.0] of each image to 8 bits"),
        (
            {"mode": "match", "quantiles": [0, 9, 255]},
            "thermal of each image matched to the quantiles [0.0, 9.0, 255.0]",
        ),
        ({"mode": "minmax", "invert": True}, "thermal extremes of each image to 8 bits, thermal inverted"),
    ],
)
def test_description_for_the_protocol(options, text):
    assert ThermalScaling(**options).describe() == text


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, dtype", [("x.png", np.uint16), ("x.tiff", np.uint16), ("x.tiff", np.float32)])
def test_raw_files_come_back_and_are_scaled(tmp_path, name, dtype):
    raw_HW = (7000 + 10 * RAMP_HW.astype(int)).astype(dtype)
    file = write(tmp_path / name, raw_HW)
    assert read_raw_thermal(file).dtype == dtype
    np.testing.assert_array_equal(read_raw_thermal(file), raw_HW)
    scaling = ThermalScaling(mode="fixed", range=(7000, 9550))
    np.testing.assert_array_equal(read_thermal(file, scaling), RAMP_HW)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_three_equal_channels_count_as_one(tmp_path, dtype):
    image_HW = RAMP_HW.astype(dtype) * (1 if dtype == np.uint8 else 257)
    np.testing.assert_array_equal(read_raw_thermal(write(tmp_path / "x.png", np.dstack([image_HW] * 3))), image_HW)


def test_opaque_alpha_beside_grey_is_dropped(tmp_path):
    image = np.dstack([RAMP_HW] * 3 + [np.full_like(RAMP_HW, 255)])
    np.testing.assert_array_equal(read_thermal(write(tmp_path / "x.png", image)), RAMP_HW)


def test_four_channels_point_to_mfnet(tmp_path):
    image = np.dstack([RAMP_HW] * 4)
    message = error_of(lambda: read_thermal(write(tmp_path / "x.png", image)))
    assert "got 4 channels" in message and "type: MFNet" in message


def test_jpeg_whose_channels_differ_by_rounding(tmp_path):
    grey_HW = RAMP_HW.repeat(4, axis=0).repeat(4, axis=1)
    image = (50 + grey_HW[..., None] // 2 + np.array([2, 0, 0], np.uint8)).astype(np.uint8)
    file = write(tmp_path / "x.jpg", image, cv2.IMWRITE_JPEG_QUALITY, 95)
    decoded = cv2.imread(str(file), cv2.IMREAD_UNCHANGED).astype(int)
    spread = np.ptp(decoded, axis=2).max()
    assert 0 < spread <= GREY_TOLERANCE, "the file no longer tests what it should"
    thermal_HW = read_thermal(file).astype(int)
    assert thermal_HW.shape == (64, 64) and np.abs(thermal_HW - decoded.mean(axis=2)).max() <= spread


def test_channels_that_differ_beyond_rounding_are_colours(tmp_path):
    image = np.dstack([RAMP_HW] * 3)
    image[3, 4] = (100, 100 + GREY_TOLERANCE, 100)
    assert read_thermal(write(tmp_path / "x.png", image))[3, 4] == 100 + GREY_TOLERANCE
    image[3, 4, 1] += 1
    assert "got a colour image" in error_of(lambda: read_thermal(write(tmp_path / "x.png", image)))


@pytest.mark.parametrize("channel", [0, 1, 2])
@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_channels_of_more_bits_must_be_equal(tmp_path, channel, step, dtype):
    image = np.dstack([RAMP_HW.astype(dtype) + 7000] * 3)
    assert read_raw_thermal(write(tmp_path / "x.tiff", image))[0, 3] == 7003
    image[0, 0, channel] = 7000 + step
    assert "got a colour image" in error_of(lambda: read_raw_thermal(write(tmp_path / "x.tiff", image)))


@pytest.mark.parametrize("colormap", COLORMAPS)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_pseudo_colours_are_refused(tmp_path, colormap, suffix):
    file = write(tmp_path / f"x{suffix}", cv2.applyColorMap(RAMP_HW, colormap))
    message = error_of(lambda: read_thermal(file, ThermalScaling(mode="minmax")))
    for part in (str(file), "got a colour image", "False colours cannot be turned back", "white hot"):
        assert part in message


def test_rgb_photograph_given_as_thermal(tmp_path, scenes):
    file = write(tmp_path / "x.jpg", scenes["00000D"].rgb)
    assert "got a colour image" in error_of(lambda: read_thermal(file))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.filterwarnings("error")
def test_numbers_that_are_none_are_refused(tmp_path, value, channels):
    image = np.full((4, 5, channels), 20, np.float32).squeeze()
    image[2, 3] = value
    file = write(tmp_path / "x.tiff", image)
    message = error_of(lambda: read_thermal(file, ThermalScaling(mode="minmax")))
    assert str(file) in message and "not finite" in message


# --- in a data set -----------------------------------------------------------------------------------------------


def test_scaling_reaches_packed_and_folders_alike(packed, folders):
    scaling = {"mode": "minmax", "invert": True}
    frames = [MFNet(MFNetOptions(root=root, thermal_scaling=scaling), role="train")[0] for root in (packed, folders)]
    assert frames[0].thermal_HW.min() == 0 and frames[0].thermal_HW.max() == 255
    np.testing.assert_array_equal(frames[0].thermal_HW, frames[1].thermal_HW)
    plain: Frame = MFNet(MFNetOptions(root=packed), role="train")[0]
    assert np.corrcoef(plain.thermal_HW.ravel(), frames[0].thermal_HW.ravel())[0, 1] < -0.99


def test_real_thermal_spans_all_levels_after_percentiles(mfnet_mini):
    stored = MFNet(MFNetOptions(root=mfnet_mini, limit=2), role="test")
    stretched = MFNet(MFNetOptions(root=mfnet_mini, limit=2, thermal_scaling={"mode": "percentile"}), role="test")
    assert stretched.preparation() == "thermal percentiles [1.0, 99.0] of each image to 8 bits"
    for before, after in zip(stored, stretched, strict=True):
        share = (after.thermal_HW == 0).mean(), (after.thermal_HW == 255).mean()
        assert all(0.005 <= part <= 0.05 for part in share), share
        order = np.argsort(before.thermal_HW, axis=None, kind="stable")
        assert (np.diff(after.thermal_HW.ravel()[order].astype(int)) >= 0).all(), "the order of temperatures changed"
        np.testing.assert_array_equal(before.rgb_HW3, after.rgb_HW3)
