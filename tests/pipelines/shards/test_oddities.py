import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from softfeed.pipelines.shards.oddities import oddities

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed; it comes with softfeed[test]")
given, st = hypothesis.given, hypothesis.strategies


def _picture(mode="RGB"):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def _file(picture, kind, **settings):
    file = io.BytesIO()
    picture.save(file, kind, **settings)
    return file.getvalue()


def _turned(orientation):
    exif = Image.Exif()
    exif[0x010F] = "a maker, so that the orientation is not the first entry"
    exif[0x0112] = orientation
    return exif


def _deep():
    return Image.fromarray(np.arange(16 * 24, dtype=np.uint16).reshape(16, 24))


def _png_of_bits(depth, colour):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


ODD = {
    "CMYK JPEG": (_file(_picture("CMYK"), "JPEG"), "a.jpg", ["CMYK"]),
    "CMYK TIFF": (_file(_picture("CMYK"), "TIFF"), "a.tif", ["CMYK"]),
    "RGB JPEG": (_file(_picture(), "JPEG", keep_rgb=True), "a.jpg", ["JPEG of RGB channels"]),
    "PNG named JPEG": (_file(_picture(), "PNG"), "n02/n02105855_2933.JPEG", ["png named jpg"]),
    "JPEG named PNG": (_file(_picture(), "JPEG"), "a.png", ["jpg named png"]),
    "16-bit PNG": (_file(_deep(), "PNG"), "a.png", ["16 bits per channel"]),
    "16-bit RGB PNG": (_png_of_bits(16, 2), "a.png", ["16 bits per channel"]),
    "16-bit TIFF": (_file(_deep(), "TIFF"), "a.tiff", ["more than 8 bits per channel (I;16)"]),
    "grey and alpha": (_file(_picture("LA"), "PNG"), "a.png", ["alpha channel"]),
    "RGBA": (_file(_picture("RGBA"), "PNG"), "a.png", ["alpha channel"]),
    "transparent palette": (_file(_picture("P"), "PNG", transparency=3), "a.png", ["transparent colour"]),
    "APNG": (_file(_picture(), "PNG", save_all=True, append_images=[_picture("L")]), "a.png", ["animated"]),
    "animated WebP": (
        _file(_picture(), "WEBP", save_all=True, append_images=[_picture().rotate(90)]),
        "a.webp",
        ["animated or of several pages"],
    ),
    "TIFF of two pages": (
        _file(_picture(), "TIFF", save_all=True, append_images=[_picture()]),
        "a.tif",
        ["animated or of several pages"],
    ),
    **{
        f"turned {kind}": (_file(_picture(), kind, exif=_turned(6)), "a", ["turned by EXIF orientation 6"])
        for kind in ("JPEG", "PNG", "WEBP", "TIFF")
    },
    "two things": (
        _file(_picture("CMYK"), "JPEG", exif=_turned(8)),
        "a.png",
        ["jpg named png", "turned by EXIF orientation 8", "CMYK"],
    ),
}
PLAIN = {
    "JPEG": (_file(_picture(), "JPEG"), "a b/v1.0.JPEG"),
    "progressive": (_file(_picture(), "JPEG", progressive=True), "a.jfif"),
    "grey JPEG": (_file(_picture("L"), "JPEG"), "a.jpg"),
    "upright": (_file(_picture(), "JPEG", exif=_turned(1)), "a.jpg"),
    "PNG": (_file(_picture(), "PNG"), "a.png"),
    "grey PNG": (_file(_picture("L"), "PNG"), "a.png"),
    "one bit": (_file(_picture("1"), "PNG"), "a.png"),
    "palette": (_file(_picture("P"), "PNG"), "a.png"),
    "Parquet row": (_file(_picture(), "PNG"), "train-00000-of-00001.parquet/17"),
    "BMP": (_file(_picture(), "BMP"), "a.bmp"),
    "WebP": (_file(_picture(), "WEBP"), "a.webp"),
    "TIFF": (_file(_picture(), "TIFF"), "a.tiff"),
    "PPM": (_file(_picture(), "PPM"), "data_batch_1/3"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_images_are_told(case):
    image, name, expected = ODD[case]
    assert oddities(image, name) == expected


@pytest.mark.parametrize("case", PLAIN)
def test_plain_images_are_not_odd(case):
    assert oddities(*PLAIN[case]) == []


def test_an_adobe_segment_tells_channels_that_are_no_luma_and_chroma():
    image = _file(_picture(), "JPEG")
    adobe = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"
    assert oddities(image[:2] + adobe + image[2:], "a.jpg") == ["JPEG of RGB channels"]


@given(st.sampled_from(sorted(ODD)), st.data())
def test_damaged_headers_raise_nothing(case, data):
    image = bytearray(ODD[case][0])
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, min(len(image), 200) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(image)))
    if not bytes(image).startswith((b"RIFF", b"II", b"MM")):  # whose sizes are checked before, as Pillow opens them
        assert isinstance(oddities(bytes(image[:cut]), "a.jpg"), list)
