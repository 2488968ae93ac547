"""Views and copies between tensors and arrays.

Shape suffixes: H, W are height and width in pixels, C channels.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from mdg.data.transforms.chain import pack, to_array, to_image, to_planes, unpack

RNG = np.random.default_rng(0)
PACKED_HW4 = RNG.integers(0, 256, (20, 30, 4), dtype=np.uint8)
RGB_HW3, THERMAL_HW = np.ascontiguousarray(PACKED_HW4[..., :3]), np.ascontiguousarray(PACKED_HW4[..., 3])


def orders(array_HWC: np.ndarray) -> dict[str, torch.Tensor]:
    """The same image in the orders in memory that transforms may leave behind."""
    interleaved = to_image(array_HWC)
    wide = torch.zeros(interleaved.shape[0], 40, 50, dtype=torch.uint8)
    wide[:, 5:25, 7:37] = interleaved
    return {
        "interleaved": interleaved,
        "planes": tv_tensors.Image(interleaved.contiguous()),
        "cut out of planes": tv_tensors.Image(wide[:, 5:25, 7:37]),
        "cut out of interleaved": tv_tensors.Image(wide.permute(1, 2, 0).contiguous().permute(2, 0, 1)[:, 5:25, 7:37]),
    }


@pytest.mark.parametrize("order", orders(RGB_HW3))
@pytest.mark.parametrize("array_HWC", [RGB_HW3, THERMAL_HW[..., None]], ids=["three", "one"])
def test_any_order_in_memory(order, array_HWC):
    image = orders(array_HWC)[order]
    array = to_array(image)
    assert array.flags.c_contiguous and array.shape == array_HWC.shape
    np.testing.assert_array_equal(array, array_HWC)
    planes = to_planes(image)
    assert type(planes) is torch.Tensor and planes.is_contiguous()
    np.testing.assert_array_equal(planes.numpy(), array_HWC.transpose(2, 0, 1))


def test_interleaved_images_are_not_copied():
    image = to_image(RGB_HW3)
    assert type(image) is tv_tensors.Image and image.shape == (3, 20, 30)
    assert np.shares_memory(image.numpy(), RGB_HW3) and np.shares_memory(to_array(image), RGB_HW3)
    assert to_image(THERMAL_HW).shape == (1, 20, 30)
    assert to_planes(to_image(THERMAL_HW)).data_ptr() == THERMAL_HW.ctypes.data


@pytest.mark.parametrize("order", orders(RGB_HW3))
def test_pack_and_unpack(order):
    packed = pack(orders(RGB_HW3)[order], orders(THERMAL_HW[..., None])[order])
    assert packed.flags.c_contiguous
    np.testing.assert_array_equal(packed, PACKED_HW4)
    images = unpack(packed)
    np.testing.assert_array_equal(images["rgb"].permute(1, 2, 0).numpy(), RGB_HW3)
    np.testing.assert_array_equal(images["thermal"][0].numpy(), THERMAL_HW)
    assert {type(image) for image in images.values()} == {tv_tensors.Image}
    assert not np.shares_memory(packed, RGB_HW3) and not np.shares_memory(images["rgb"].numpy(), packed)


def test_unpack_fills_up_with_black():
    images = unpack(np.ascontiguousarray(PACKED_HW4[:, :25]), (33, 30))
    for image, expected_HWC in zip(images.values(), (RGB_HW3, THERMAL_HW[..., None]), strict=True):
        array_HWC = to_array(image)
        assert array_HWC.shape[:2] == (33, 30) and not array_HWC[20:].any() and not array_HWC[:, 25:].any()
        np.testing.assert_array_equal(array_HWC[:20, :25], expected_HWC[:, :25])
