"""Every transform on frames whose pixels say where they came from.

What each computes is tested in ``test_colour.py`` and ``test_sampling.py``: here, what it draws and what it moves.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from mdg.data import build_transforms
from mdg.data.base import Frame
from mdg.data.transforms import geometry, photometry
from mdg.data.transforms.chain import apply_transforms, as_image, as_mask, to_sample
from mdg.errors import ConfigError, DataError
from mdg.registry import TRANSFORMS

HEIGHT, WIDTH = 60, 80
STEP = 3  # grey levels per pixel of the ramps
GEOMETRY = {
    "HorizontalFlip": {"p": 1.0},
    "Rotation": {"p": 1.0, "degrees": 25},
    "RandomResizedCrop": {"size": [48, 72], "scale": [0.5, 2.0]},
    "Resize": {"size": [45, 100]},
}
PHOTOMETRY = {
    "ColorJitter": {"p": 1.0, "hue": 0.2},
    "GaussianBlur": {"p": 1.0, "kernel_size": 5, "sigma": [1.0, 2.0]},
    "Sharpness": {"p": 1.0},
    "AutoContrast": {"p": 1.0},
}
EVERY = {**GEOMETRY, **PHOTOMETRY, "ThermalJitter": {"p": 1.0}}

PARTS = {"rgb": as_image, "thermal": as_image, "label": as_mask}  # what plain tensors become


def ramp_frame() -> Frame:
    """RGB's red is a ramp along x, its green along y, its blue and thermal equal x; the label is x in pixels."""
    y_HW, x_HW = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    rgb_HW3 = np.dstack([STEP * x_HW, STEP * y_HW, STEP * x_HW])
    return Frame(rgb_HW3, STEP * x_HW, x_HW, "ramp")


def noise_frame(seed: int = 0) -> Frame:
    rng = np.random.default_rng(seed)
    rgb_HW3 = rng.integers(40, 200, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    thermal_HW = rng.integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)
    return Frame(rgb_HW3, thermal_HW, rng.integers(0, 9, (HEIGHT, WIDTH), dtype=np.uint8), "noise")


def run(name: str, frame: Frame, seed: int = 0, **options) -> dict:
    torch.manual_seed(seed)
    return apply_transforms(to_sample(frame), build_transforms([{"type": name, **options}]))


def inside(sample: dict, margin: int = 2) -> torch.Tensor:
    """[H, W] bool: pixels that were seen, and whose neighbours up to ``margin`` px away were too.

    Images blend into the fill over the last pixel, so the edge of the frame (beyond which all is unseen) is left out.
    """
    unseen_1HW = torch.nn.functional.pad((sample["label"] == 255).float()[None], [margin] * 4, value=1.0)
    return torch.nn.functional.max_pool2d(unseen_1HW, 2 * margin + 1, 1)[0] == 0


# --- geometry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_moves_all_three_alike(name, seed):
    sample = run(name, ramp_frame(), seed, **GEOMETRY[name])
    seen = inside(sample)
    assert seen.float().mean() > 0.1
    x_px = sample["label"][seen].float()
    for part in (sample["rgb"][0], sample["rgb"][2], sample["thermal"][0]):
        assert (part[seen] / STEP - x_px).abs().max() <= 1.0  # px; the label knows x to half a pixel


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_keeps_label_ids(name, seed):
    frame = noise_frame()
    frame.label_HW[:] = np.where(frame.label_HW > 4, 8, 1)  # anything between 1 and 8 would be interpolation
    ids = run(name, frame, seed, **GEOMETRY[name])["label"].unique().tolist()
    assert {1, 8} <= set(ids) <= {1, 8, 255}


@pytest.mark.parametrize("name", GEOMETRY)
def test_geometry_changes_something(name):
    before, after = to_sample(ramp_frame()), run(name, ramp_frame(), 3, **GEOMETRY[name])
    assert all(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    "name, options",
    [("Rotation", {"p": 1.0, "degrees": 25}), ("RandomResizedCrop", {"size": [60, 80], "scale": [0.5, 0.5]})],
)
def test_what_comes_in_is_black_and_ignored(name, options):
    frame = noise_frame()
    frame.rgb_HW3[:], frame.thermal_HW[:] = 100, 100
    sample = run(name, frame, 1, **options)
    unseen = ~inside(sample, margin=0)
    far = torch.nn.functional.max_pool2d((~unseen).float()[None], 5, 1, 2)[0] == 0
    assert far.any() and (sample["rgb"][:, far] == 0).all() and (sample["thermal"][0, far] == 0).all()
    assert (sample["rgb"][:, inside(sample)] == 100).all()


def test_flip_is_exact():
    frame = noise_frame()
    sample = run("HorizontalFlip", frame, p=1.0)
    np.testing.assert_array_equal(sample["label"].numpy(), frame.label_HW[:, ::-1])
    np.testing.assert_array_equal(sample["rgb"].permute(1, 2, 0).numpy(), frame.rgb_HW3[:, ::-1])
    np.testing.assert_array_equal(sample["thermal"][0].numpy(), frame.thermal_HW[:, ::-1])


def test_crop_at_scale_one_is_the_image():
    sample = run("RandomResizedCrop", noise_frame(), size=[HEIGHT, WIDTH], scale=[1, 1])
    before = to_sample(noise_frame())
    assert all(torch.equal(sample[key], before[key]) for key in before)


def test_crop_below_one_pads_right_and_below():
    label_HW = run("RandomResizedCrop", noise_frame(), size=[HEIGHT, WIDTH], scale=[0.5, 0.5])["label"]
    seen = label_HW != 255
    assert seen[: HEIGHT // 2, : WIDTH // 2].all() and seen.sum() == HEIGHT * WIDTH // 4


@pytest.mark.parametrize("size", [(30, 80), (60, 40), (120, 160)])
def test_crop_of_another_aspect_is_just_covered_at_one(size):
    sample = run("RandomResizedCrop", ramp_frame(), size=list(size), scale=[1, 1])
    assert sample["label"].shape == size and (sample["label"] != 255).all()
    # Constant aspect: x and y advance by the same number of source pixels per pixel.
    red, green = sample["rgb"][0].float(), sample["rgb"][1].float()
    middle = size[0] // 2, size[1] // 2
    x_advance = (red[middle[0], -3] - red[middle[0], 2]) / (size[1] - 5)
    y_advance = (green[-3, middle[1]] - green[2, middle[1]]) / (size[0] - 5)
    assert x_advance == pytest.approx(float(y_advance), rel=0.05)


def test_crop_positions_reach_all_edges():
    lefts, rights = set(), set()
    for seed in range(40):
        label_HW = run("RandomResizedCrop", ramp_frame(), seed, size=[56, 76], scale=[1.02, 1.06])["label"]
        lefts.add(int(label_HW[0, 0]))
        rights.add(int(label_HW[0, -1]))
    assert 0 in lefts and max(lefts) > 0 and WIDTH - 1 in rights and min(rights) < WIDTH - 1


@pytest.mark.parametrize("seed", range(6))
def test_crop_is_that_of_the_whole_resized_image(seed):
    frame, size, scale = noise_frame(), (48, 72), (0.5, 2.0)
    torch.manual_seed(seed)
    draws = torch.rand(3, dtype=torch.float64).tolist()
    factor = (scale[0] + draws[0] * (scale[1] - scale[0])) * max(size[0] / HEIGHT, size[1] / WIDTH)
    resized = round(HEIGHT * factor), round(WIDTH * factor)
    top, left = (int(draws[1 + k] * (max(resized[k] - size[k], 0) + 1)) for k in range(2))
    sample = run("RandomResizedCrop", frame, seed, size=list(size), scale=list(scale))
    for key, part in to_sample(frame).items():
        mode = v2.InterpolationMode.NEAREST_EXACT if key == "label" else v2.InterpolationMode.BILINEAR
        image = part.as_subclass(torch.Tensor) if key != "label" else part.as_subclass(torch.Tensor)[None]
        whole = F.resize(image.contiguous(), list(resized), interpolation=mode, antialias=True)
        cut = F.crop(whole, top, left, min(size[0], resized[0]), min(size[1], resized[1]))
        missing = [0, 0, size[1] - cut.shape[-1], size[0] - cut.shape[-2]]
        expected = F.pad(cut, missing, fill=255 if key == "label" else 0).squeeze(0)
        off = (sample[key].squeeze(0).int() - expected.int()).abs().max()
        assert off <= (0 if key == "label" else 1 if int(cv2.__version__.split(".")[0]) >= 5 else 8), key


def test_downsized_label_takes_the_centre_pixel():
    label_HW = run("Resize", ramp_frame(), size=[20, 40])["label"]
    assert label_HW[0, :3].tolist() == [1, 3, 5]  # of the pairs (0, 1), (2, 3), ...
    frame = ramp_frame()
    third = run("Resize", frame, size=[HEIGHT // 3, WIDTH])["label"]
    np.testing.assert_array_equal(third.numpy(), frame.label_HW[1::3])


# --- photometry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PHOTOMETRY)
def test_photometry_changes_rgb_only(name):
    before, after = to_sample(noise_frame()), run(name, noise_frame(), 1, **PHOTOMETRY[name])
    assert not torch.equal(before["rgb"], after["rgb"])
    assert torch.equal(before["thermal"], after["thermal"]) and torch.equal(before["label"], after["label"])


@pytest.mark.parametrize("name", [*PHOTOMETRY, "ThermalJitter", "HorizontalFlip", "Rotation"])
def test_never_at_probability_zero(name):
    before = to_sample(noise_frame())
    for seed in range(5):
        after = run(name, noise_frame(), seed, p=0)
        assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    "name, p", [(name, 0.2) for name in [*PHOTOMETRY, "ThermalJitter", "Rotation"]] + [("HorizontalFlip", 0.5)]
)
def test_default_probability(name, p):
    frame = Frame(
        *(part[:12, :16].copy() for part in (noise_frame().rgb_HW3, noise_frame().thermal_HW, noise_frame().label_HW)),
        "small",
    )
    before, transforms = to_sample(frame), build_transforms([name])
    torch.manual_seed(0)
    after = [apply_transforms(before, transforms) for _ in range(400)]
    changed = np.mean([any(not torch.equal(before[key], sample[key]) for key in before) for sample in after])
    assert abs(changed - p) < 0.08  # four standard deviations at p = 0.2


def test_thermal_jitter_is_gain_and_offset():
    frame = noise_frame()
    for seed in range(5):
        sample = run("ThermalJitter", frame, seed, p=1.0, gain=0.1, offset=10)
        assert torch.equal(sample["rgb"], to_sample(frame)["rgb"])
        after = sample["thermal"][0].numpy().astype(float)
        free = (after > 0) & (after < 255)
        gain, offset = np.polyfit(frame.thermal_HW[free], after[free], 1)
        assert 0.89 < gain < 1.11 and abs(offset) < 10.5
        np.testing.assert_allclose(after[free], gain * frame.thermal_HW[free] + offset, atol=1)


# --- what is drawn -----------------------------------------------------------------------------------------------


def test_jitter_draws_order_and_factors(monkeypatch):
    calls = []
    for name in ("brightness", "contrast", "saturation", "hue"):
        change = lambda image, value, name=name: (calls.append((name, value)), image)[1]  # noqa: E731
        monkeypatch.setattr(photometry, f"adjust_{name}", change)
    (jitter,) = build_transforms([{"type": "ColorJitter", "p": 1.0, "brightness": 0.5, "contrast": 0.2, "hue": 0.1}])
    torch.manual_seed(0)
    sample, orders = to_sample(noise_frame()), []
    for _ in range(300):
        start = len(calls)
        jitter(sample)
        orders.append(tuple(name for name, _ in calls[start:]))
    assert len(set(orders)) == 24 and all(len(set(order)) == 4 for order in orders)
    for name, middle, spread in (("brightness", 1, 0.5), ("contrast", 1, 0.2), ("saturation", 1, 0.5), ("hue", 0, 0.1)):
        values = [value for called, value in calls if called == name]
        assert middle - spread <= min(values) < middle - 0.95 * spread
        assert middle + 0.95 * spread < max(values) <= middle + spread


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_jitter_leaves_alone_what_has_no_range(name, monkeypatch):
    monkeypatch.setattr(photometry, f"adjust_{name}", None)
    run("ColorJitter", noise_frame(), p=1.0, **{name: 0})


def test_blur_and_rotation_draw_from_their_ranges(monkeypatch):
    drawn = {"sigma": [], "images": [], "label": []}
    monkeypatch.setattr(
        photometry, "gaussian_blur", lambda image, size, sigma: (drawn["sigma"].append(sigma), image)[1]
    )
    monkeypatch.setattr(geometry, "rotate_image", lambda image, angle: (drawn["images"].append(angle), image)[1])
    monkeypatch.setattr(geometry, "rotate_label", lambda label, angle: (drawn["label"].append(angle), label)[1])
    for seed in range(100):
        run("GaussianBlur", noise_frame(), seed, p=1.0, sigma=[0.1, 2.0])
        run("Rotation", noise_frame(), seed, p=1.0, degrees=10)
    assert 0.1 <= min(drawn["sigma"]) < 0.2 and 1.9 < max(drawn["sigma"]) <= 2
    assert -10 <= min(drawn["images"]) < -9 and 9 < max(drawn["images"]) <= 10
    assert drawn["images"] == drawn["label"]


# --- the chain ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_same_seed_same_sample(name):
    first, second = (run(name, noise_frame(), 5, **EVERY[name]) for _ in range(2))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", EVERY)
def test_order_in_memory_and_threads_do_not_matter(name):
    (transform,) = build_transforms([{"type": name, **EVERY[name]}])
    interleaved = to_sample(noise_frame())
    planes = {key: kind(interleaved[key].contiguous()) for key, kind in PARTS.items()}
    before, results = cv2.getNumThreads(), []
    for sample, threads in ((interleaved, 0), (planes, 0), (interleaved, 3)):
        cv2.setNumThreads(threads)
        torch.manual_seed(5)
        results.append(transform(sample))
    cv2.setNumThreads(before)
    for other in results[1:]:
        assert all(torch.equal(results[0][key], other[key]) for key in PARTS)


@pytest.mark.parametrize("name", EVERY)
def test_a_transform_leaves_its_argument_alone(name):
    before, sample = to_sample(noise_frame()), to_sample(noise_frame())
    torch.manual_seed(5)
    apply_transforms(sample, build_transforms([{"type": name, **EVERY[name]}]))
    assert all(torch.equal(before[key], sample[key]) for key in before)


def test_transforms_of_torchvision_fit_into_the_chain():
    turned = [v2.RandomHorizontalFlip(1.0), v2.RandomRotation((180, 180), fill=0), v2.RandomVerticalFlip(1.0)]
    ours = build_transforms([{"type": "HorizontalFlip", "p": 1}, {"type": "Resize", "size": [30, 40]}])
    mixed = [ours[0], *turned, ours[0], ours[1]]
    plain = apply_transforms(to_sample(noise_frame()), ours[1:])
    sample = apply_transforms(to_sample(noise_frame()), mixed)
    assert all(torch.equal(sample[key], plain[key]) for key in plain)


def test_frames_may_be_read_only_or_views():
    frame = noise_frame()
    views = [part[:, ::-1] for part in (frame.rgb_HW3, frame.thermal_HW, frame.label_HW)]
    for part in views:
        part.flags.writeable = False
    mirrored, expected = to_sample(Frame(*views, "view")), run("HorizontalFlip", frame, p=1.0)
    assert all(torch.equal(mirrored[key], expected[key]) for key in expected)


def test_transforms_run_in_order():
    chain = build_transforms([{"type": "Resize", "size": [10, 20]}, {"type": "Resize", "size": [30, 40]}])
    assert apply_transforms(to_sample(noise_frame()), chain)["label"].shape == (30, 40)


def test_samples_do_not_share_memory_with_the_data_set():
    frame = noise_frame()
    sample = to_sample(frame)
    assert all(
        type(sample[key]) is kind
        for key, kind in (("rgb", tv_tensors.Image), ("thermal", tv_tensors.Image), ("label", tv_tensors.Mask))
    )
    for part in sample.values():
        part.zero_()
    assert frame.rgb_HW3.any() and frame.thermal_HW.any() and frame.label_HW.any()


@pytest.mark.parametrize(
    "broken, shown",
    [
        (lambda sample: {**sample, "rgb": sample["rgb"].as_subclass(torch.Tensor)}, "'rgb' as Tensor torch.uint8"),
        (lambda sample: {**sample, "thermal": sample["thermal"].to(torch.float32)}, "'thermal' as "),
        (lambda sample: {**sample, "label": tv_tensors.Mask(sample["label"][:5])}, "[5, 80]"),
    ],
)
def test_a_transform_that_breaks_the_sample_is_named(broken, shown):
    class Broken:
        def __call__(self, sample):
            return broken(sample)

    with pytest.raises(DataError) as caught:
        apply_transforms(to_sample(noise_frame()), [Broken()])
    assert "transform Broken" in str(caught.value) and shown in str(caught.value)


# --- options -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"type": "ColorJitter", "p": 1.5},
        {"type": "ColorJitter", "hue": 0.6},
        {"type": "ColorJitter", "brightness": -1},
        {"type": "GaussianBlur", "kernel_size": 4},
        {"type": "GaussianBlur", "sigma": [2, 1]},
        {"type": "GaussianBlur", "sigma": [0, 1]},
        {"type": "Sharpness", "factor": -1},
        {"type": "AutoContrast", "q": 1},
        {"type": "HorizontalFlip", "p": -0.1},
        {"type": "Rotation", "degrees": 181},
        {"type": "Resize"},
        {"type": "Resize", "size": [0, 5]},
        {"type": "Resize", "size": 5},
        {"type": "RandomResizedCrop", "size": [4, 4, 4]},
        {"type": "RandomResizedCrop", "size": [4, 4], "scale": [2, 1]},
        {"type": "ThermalJitter", "gain": 2},
        {"type": "RandomResizedCrop", "size": [4, 4], "scale": [0, 1]},
    ],
)
def test_options_are_checked(options):
    with pytest.raises(ValueError):
        TRANSFORMS.parse(options)


def test_unknown_transform_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'HorizontalFlip'"):
        TRANSFORMS.parse("HorizontlFlip")
