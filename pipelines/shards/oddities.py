"""Images that decoders do not agree on, told by their headers: CMYK, 16 bits, animated, turned by EXIF, misnamed.

DALI's CPU decoder and Pillow agree on most of them, GPU decoders and older tools do not. Nothing is decoded here; the
size of an image must have been checked before.
"""

import io
import struct
from typing import NamedTuple

from PIL import Image

from .decoding import PILLOW_ERRORS, PILLOW_FORMATS, extension_of, no_warnings

_NAMES = {  # extension by the content, extensions of names that fit it
    "jpg": ("jpg", "jpeg", "jpe", "jfif", "mpo"),
    "png": ("png", "apng"),
    "tif": ("tif", "tiff"),
    "bmp": ("bmp", "dib"),
    "gif": ("gif",),
    "webp": ("webp",),
    "jp2": ("jp2", "j2k", "jpx"),
}
_ORIENTATION = 0x0112
_ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
_DEEP_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ADOBE_RGB = 0  # transform of an Adobe segment: the channels are not luma and chroma


class OddImage(NamedTuple):
    """An image that decoders may not agree on, why, and whether it was rewritten as a plain one."""

    name: str
    label: int
    reason: str
    rewritten: bool


def oddities(image: bytes, name: str) -> list[str]:
    """What is unusual about an image file, in a few words each; empty for most.

    Args:
        image: content of a file that decodes, or at least has a size within bounds.
        name: original name, whose extension may belie the content.
    """
    extension = extension_of(image)
    found = _misnamed(extension, name)
    if extension == "jpg":
        return found + _in_jpeg(image)
    if extension == "png":
        return found + _in_png(image)
    return found if extension in (None, "ppm", "pgm", "pnm") else found + _by_pillow(image)


def named_extension(name: str) -> str | None:
    """Usual extension of the format that a name claims; None if it claims none."""
    claimed = name.rpartition("/")[2].rpartition(".")[2].lower()
    return next((extension for extension, names in _NAMES.items() if claimed in names), None)


def _misnamed(extension: str | None, name: str) -> list[str]:
    claimed = named_extension(name)
    return [f"{extension} named {claimed}"] if claimed not in (None, extension) else []


def _in_jpeg(image: bytes) -> list[str]:
    found = []
    channels, transform = 3, None
    position = 2
    while position + 4 <= len(image) and image[position] == 0xFF:
        marker = image[position + 1]
        if marker == 0xFF:  # fill
            position += 1
            continue
        if marker in (0xDA, 0xD9):  # the scan begins
            break
        start, size = position + 4, int.from_bytes(image[position + 2 : position + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and start + 6 <= len(image):
            channels = image[start + 5]
            found += [f"{image[start]} bits per channel"] if image[start] != 8 else []
        elif marker == 0xEE and image[start : start + 5] == b"Adobe" and start + 12 <= len(image):
            transform = image[start + 11]
        elif marker == 0xE1 and image[start : start + 6] == b"Exif\0\0":
            found += _turned(image[start + 6 : position + 2 + size])
        position += 2 + max(size, 2)
    if channels == 4:
        found.append("CMYK")
    if channels == 3 and transform == _ADOBE_RGB:
        found.append("JPEG of RGB channels")
    return found


def _in_png(image: bytes) -> list[str]:
    found = []
    position = 8
    while position + 8 <= len(image):
        size, kind = int.from_bytes(image[position : position + 4], "big"), image[position + 4 : position + 8]
        start = position + 8
        if kind == b"IHDR" and start + 10 <= len(image):
            found += ["16 bits per channel"] if image[start + 8] == 16 else []
            found += ["alpha channel"] if image[start + 9] & 4 else []
        elif kind == b"acTL":
            found.append("animated")
        elif kind == b"tRNS":
            found.append("transparent colour")
        elif kind == b"eXIf":
            found += _turned(image[start : start + size])
        position = start + size + 4
    return found


def _turned(exif: bytes) -> list[str]:
    """Whether the first directory of EXIF data has an orientation other than upright."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return []
    (offset,) = struct.unpack_from(order + "I", exif, 4)
    if offset + 2 > len(exif):
        return []
    (count,) = struct.unpack_from(order + "H", exif, offset)
    for entry in range(offset + 2, min(offset + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, _, value = struct.unpack_from(order + "HHIH", exif, entry)
        if tag == _ORIENTATION and kind == 3:
            return [f"turned by EXIF orientation {value}"] if 2 <= value <= 8 else []
    return []


def _by_pillow(image: bytes) -> list[str]:
    try:
        with no_warnings(), Image.open(io.BytesIO(image), formats=PILLOW_FORMATS) as opened:
            found = ["animated or of several pages"] if getattr(opened, "is_animated", False) else []
            found += ["CMYK"] if opened.mode == "CMYK" else []
            found += ["alpha channel"] if opened.mode in _ALPHA_MODES else []
            found += [f"more than 8 bits per channel ({opened.mode})"] if opened.mode in _DEEP_MODES else []
            orientation = opened.getexif().get(_ORIENTATION)
            return found + ([f"turned by EXIF orientation {orientation}"] if orientation in range(2, 9) else [])
    except PILLOW_ERRORS:
        return ["not opened by Pillow"]
