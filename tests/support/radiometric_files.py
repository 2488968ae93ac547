"""Radiometric JPEGs as FLIR cameras write them, built byte by byte, and FLIR's formula worked out number by number.

Shape suffixes: H, W are height and width in pixels, 3 the channels R, G, B.
"""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

R1, R2, B, F, OFFSET = 14748.044921875, 0.011027408763766289, 1393.3000488, 1.0, -5790  # of a FLIR E40bx
ALPHA1, ALPHA2, BETA1, BETA2, X = 0.006569, 0.01262, -0.002276, -0.00667, 1.9
KELVIN = 273.15
HEIGHT, WIDTH = 24, 32
ORIENTATION = 0x0112


def counts_HW(low: int = 14000, high: int = 21000) -> np.ndarray:
    """Smooth and without any symmetry."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return (low + (high - low) * (0.7 * (x / (WIDTH - 1)) ** 2 + 0.3 * y / (HEIGHT - 1))).astype(np.uint16)


def radiance(celsius: float) -> float:
    """What a sensor counts before a black body, by Planck's law with the constants of the camera."""
    return R1 / (R2 * (math.exp(B / (celsius + KELVIN)) - F)) - OFFSET


def celsius_of(count: float, emissivity=1.0, distance=0.0, air=20.0, reflected=20.0, humidity=0.5) -> float:
    """FLIR's formula: an object that also reflects, behind one layer of air, no window."""
    water = humidity * math.exp(1.5587 + 0.06939 * air - 0.00027816 * air**2 + 0.00000068455 * air**3)
    way = math.sqrt(distance)
    through = X * math.exp(-way * (ALPHA1 + BETA1 * math.sqrt(water)))
    through += (1 - X) * math.exp(-way * (ALPHA2 + BETA2 * math.sqrt(water)))
    count -= (1 - emissivity) * through * radiance(reflected) + (1 - through) * radiance(air)
    return B / math.log(R1 / (R2 * (count / (emissivity * through) + OFFSET)) + F) - KELVIN


def camera_record(emissivity=1.0, distance=0.0, air=20.0, reflected=20.0, humidity=0.5) -> bytes:
    record = bytearray(900)
    record[:2] = b"\2\0"
    numbers = {32: (emissivity, distance, reflected + KELVIN, air + KELVIN, air + KELVIN, 1.0), 60: (humidity,)}
    numbers |= {88: (R1, B, F), 112: (ALPHA1, ALPHA2, BETA1, BETA2, X), 780: (R2,)}
    for place, values in numbers.items():
        struct.pack_into(f"<{len(values)}f", record, place, *values)
    struct.pack_into("<i", record, 776, OFFSET)
    return bytes(record)


def image_record(size: tuple[int, int], content: bytes, mark: bytes = b"\2\0") -> bytes:
    height, width = size
    return (mark + struct.pack("<HH", width, height)).ljust(32, b"\0") + content


def counts_record(raw_HW: np.ndarray, png: bool = False) -> bytes:
    if not png:
        return image_record(raw_HW.shape, raw_HW.astype("<u2").tobytes())
    return image_record(raw_HW.shape, cv2.imencode(".png", raw_HW.byteswap())[1].tobytes())  # as the cameras do


def records_file(records: dict[int, bytes], order: str = ">", gap: int = 0, version: int = 101) -> bytes:
    """FFF: a head of 64 bytes, a gap, the directory, the records."""
    place = 64 + gap
    begin = place + 32 * len(records)
    head = b"FFF\0" + b"TEST".ljust(16, b"\0") + struct.pack(f"{order}3I", version, place, len(records))
    directory, content = b"", b""
    for kind, record in records.items():
        directory += struct.pack(f"{order}HHIIII12x", kind, 1, 100, 1, begin + len(content), len(record))
        content += record
    return head.ljust(place, b"\0") + directory + content


def picture_jpeg(size=(HEIGHT, WIDTH), grey: bool = False, make="FLIR Systems AB", model="FLIR T1", turn=1) -> bytes:
    ramp = cv2.resize(counts_HW(), size[::-1]).astype(float)
    ramp = ((ramp - ramp.min()) / np.ptp(ramp) * 255).astype(np.uint8)
    colours = np.dstack([ramp] * 3) if grey else cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO)
    exif = Image.Exif()
    exif[271], exif[272], exif[ORIENTATION] = make, model, turn
    stream = io.BytesIO()
    Image.fromarray(colours).save(stream, "JPEG", quality=95, exif=exif)
    return stream.getvalue()


def segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def flir_segments(content: bytes, piece: int = 60000) -> list[bytes]:
    pieces = [content[at : at + piece] for at in range(0, len(content), piece)]
    return [segment(0xE1, b"FLIR\0\1" + bytes([k, len(pieces) - 1]) + part) for k, part in enumerate(pieces)]


def put(folder: Path, data: bytes, name: str = "x.jpg") -> Path:
    file = folder / name
    file.write_bytes(data)
    return file


def radiometric(folder: Path, records: dict[int, bytes] | None = None, **picture) -> Path:
    records = {1: counts_record(counts_HW()), 32: camera_record()} if records is None else records
    return put(folder, with_segments(picture_jpeg(**picture), *flir_segments(records_file(records))))


def photograph(height: int = 48, width: int = 40) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.dstack([x * 255 // (width - 1), y * 255 // (height - 1), (x + y) * 2]).astype(np.uint8)


def embedded(rgb_HW3: np.ndarray, kind: str) -> bytes:
    if kind == "JPEG":
        content = cv2.imencode(".jpg", cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 98])[1]
        return image_record(rgb_HW3.shape[:2], content.tobytes())
    stream = io.BytesIO()  # a PNG that names as R, G, B what is Y, Cb, Cr
    Image.fromarray(np.array(Image.fromarray(rgb_HW3).convert("YCbCr"))).save(stream, "PNG")
    return image_record(rgb_HW3.shape[:2], stream.getvalue(), b"\3\0")


def with_photograph(folder: Path, kind: str = "JPEG", **picture) -> Path:
    records = {14: embedded(photograph(), kind), 1: counts_record(counts_HW()), 32: camera_record()}
    return radiometric(folder, records, **picture)
