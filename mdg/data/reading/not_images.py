"""Files that are taken for images and are none: what they are, and what to do, told by their first bytes and suffix."""

from __future__ import annotations

import codecs

FRAMES = "take single frames out of it, for instance with ffmpeg -i FILE %05d.png"
FETCH = "give the image itself, or copy it again"
RADIOMETRIC = "export its frames as 16-bit PNG or TIFF with the program of the camera's maker"
CONVERT = "convert it to PNG"
# First bytes (at an offset), what they belong to, what to do.
SIGNATURES: tuple[tuple[int, bytes, str, str], ...] = (
    (0, b"version https://git-lfs", "a pointer of Git LFS in place of the file", "get the file with git lfs pull"),
    (0, b"FFF\0", "a recording of a FLIR camera", RADIOMETRIC),
    (0, b"\x1aE\xdf\xa3", "a video (Matroska or WebM)", FRAMES),
    (8, b"AVI ", "a video (AVI)", FRAMES),
    (0, b"FLV\x01", "a video (Flash)", FRAMES),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a video or sound (Windows Media)", FRAMES),
    (0, b"\0\0\x01\xba", "a video (MPEG)", FRAMES),
    (0, b"\0\0\x01\xb3", "a video (MPEG)", FRAMES),
    (8, b"WAVE", "a sound", FETCH),
    (0, b"ID3", "a sound", FETCH),
    (0, b"fLaC", "a sound", FETCH),
    (0, b"OggS", "a sound or video (Ogg)", FRAMES),
    (0, b"MThd", "a sound", FETCH),
    (4, b"ftypheic", "a HEIC photo", CONVERT),
    (4, b"ftypheix", "a HEIC photo", CONVERT),
    (4, b"ftypmif1", "a HEIF photo", CONVERT),
    (4, b"ftypcrx", "a raw photo", CONVERT),
    (4, b"ftypM4A", "a sound", FETCH),
    (0, b"v/1\x01", "an OpenEXR image", "convert it to PNG or TIFF"),
    (0, b"8BPS", "a file of Photoshop", CONVERT),
    (0, b"%PDF", "a PDF", CONVERT),
    (0, b"PK\x03\x04", "a ZIP archive (or a document in one)", "unpack it"),
    (0, b"\x1f\x8b", "a gzip archive", "unpack it"),
    (0, b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (0, b"Rar!", "a RAR archive", "unpack it"),
    (0, b"\x93NUMPY", "a NumPy array", "write it as 16-bit PNG or as TIFF"),
    (0, b"\x89HDF", "an HDF5 file", "write the array in it as PNG or TIFF"),
    (0, b"MATLAB", "a file of MATLAB", "write the array in it as PNG or TIFF"),
    (0, b"SQLite", "a database", FETCH),
    (128, b"DICM", "a DICOM file", "convert it to PNG or TIFF"),
)
BY_SUFFIX: tuple[tuple[tuple[str, ...], str, str], ...] = (
    ((".mp4", ".mov", ".avi", ".mkv", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".webm", ".h264"), "a video", FRAMES),
    ((".seq", ".csq", ".ats", ".ptw", ".sfmov", ".ravi"), "a recording of a thermal camera", RADIOMETRIC),
    ((".mp3", ".wav", ".flac", ".m4a", ".aac"), "a sound", FETCH),
    ((".heic", ".heif"), "a HEIC photo", CONVERT),
    ((".dng", ".cr2", ".nef", ".arw", ".raw", ".raf"), "a raw photo", CONVERT),
)
IMAGES = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF"}
IMAGES |= {b"BM": "BMP", b"GIF8": "GIF", b"\0\0\0\x0cjP": "JPEG 2000"}


def describe_foreign(head: bytes, suffix: str) -> str | None:
    """What a file is and what to do, as "it is ...; ..."; None where nothing tells, or where it begins as an image.

    Args:
        head: First bytes of the file, at least 512 where it has so many.
        suffix: Of its name, with the dot.
    """
    if not head:
        return "it is empty; copy it again"
    for place, mark, what, advice in SIGNATURES:
        if head[place : place + len(mark)] == mark:
            return f"it is {what}; {advice}"
    if head[4:8] == b"ftyp" and head[8:11] != b"avi":
        return f"it is a video (MP4 or QuickTime); {FRAMES}"
    if image_kind(head) is not None:
        return None
    if not any(head):
        return "it begins with zeros only, as a copy that was never finished does; copy it again"
    for suffixes, what, advice in BY_SUFFIX:
        if suffix.lower() in suffixes:
            return f"it is {what}, by its suffix; {advice}"
    return _describe_text(head)


def image_kind(head: bytes) -> str | None:
    """The format of image that a file begins as."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    return next((kind for mark, kind in IMAGES.items() if head.startswith(mark)), None)


def _describe_text(head: bytes) -> str | None:
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(head).lstrip()  # the last letter may be cut
    except UnicodeDecodeError:
        return None
    if any(not (letter.isprintable() or letter.isspace()) for letter in text) or not text:
        return None
    start = text[:200].lower()
    if start.startswith(("<!doctype", "<html")) or "<html" in start:
        return f"it is a web page, perhaps the message of a download that failed; {FETCH}"
    if "<svg" in start:
        return f"it is a drawing (SVG); {CONVERT}"
    return f"it is text; {FETCH}"
