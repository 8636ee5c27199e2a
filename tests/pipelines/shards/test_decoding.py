import io
import re

import numpy as np
import pytest
from PIL import Image
from softfeed.pipelines.shards.decoding import Decoded, Decoder, HeaderReader, Undecodable, extension_of


@pytest.mark.parametrize(
    ("kind", "extension", "settings"),
    [
        ("PNG", "png", {}),
        ("JPEG", "jpg", {}),
        ("JPEG", "jpg", {"progressive": True}),
        ("WEBP", "webp", {"lossless": True}),
        ("BMP", "bmp", {}),
        ("TIFF", "tif", {"compression": "tiff_lzw"}),
        ("PPM", "ppm", {}),
        ("JPEG2000", "jp2", {}),
    ],
)
def test_pixels_are_those_of_pillow(encoded, kind, extension, settings):
    image = encoded(1, size=(67, 45), kind=kind, **settings)
    (decoded,) = Decoder(keep_pixels=True).decode([image])
    assert extension_of(image) == extension
    assert (decoded.height, decoded.width) == (45, 67)
    # No tolerance: both decode JPEG with libjpeg-turbo and its exact inverse DCT.
    pixels = np.frombuffer(decoded.pixels, np.uint8).reshape(45, 67, 3)
    np.testing.assert_array_equal(pixels, np.asarray(Image.open(io.BytesIO(image)).convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "P", "1", "LA", "RGBA"])
def test_other_modes_become_rgb(encoded, mode):
    file = io.BytesIO()
    Image.open(io.BytesIO(encoded(2))).convert(mode).save(file, "PNG")
    (decoded,) = Decoder(keep_pixels=True).decode([file.getvalue()])
    assert decoded.pixels == Image.open(file).convert("RGB").tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_after_exif_rotation(encoded, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = encoded(3, size=(40, 20), kind="JPEG", exif=exif)
    expected = (20, 40) if orientation <= 4 else (40, 20)
    for reader in (Decoder(), HeaderReader()):
        (decoded,) = reader.decode([image])
        assert (decoded.height, decoded.width) == expected


def _damaged(encoded):
    """Damaged files with the words that must describe them."""
    png, jpeg = encoded(4, size=(90, 60)), encoded(4, size=(90, 60), kind="JPEG")
    flipped = bytearray(png)
    flipped[len(png) // 2] ^= 0xFF
    return {
        b"": "empty",
        b"hello, world": r"not an image \(starts with 68 65 6c 6c 6f 2c 20 77\)",
        jpeg[: len(jpeg) // 2]: r"jpg cut short or damaged \(image file is truncated",
        jpeg[:-2]: "jpg cut short or damaged",
        jpeg[:100]: "jpg cut short or damaged",
        png[:-1000]: "png cut short or damaged",
        png[:-12]: "png that DALI does not decode",
        bytes(flipped): "png cut short or damaged",
        encoded(4, kind="WEBP")[:-50]: "webp cut short or damaged",
        encoded(4, kind="BMP")[:-50]: "bmp cut short or damaged",
        encoded(4, kind="GIF"): "GIF, which DALI does not decode; convert it to PNG",
    }


def test_damage_is_found_and_described_among_good_images(encoded, capfd):
    cases = _damaged(encoded)
    good = [encoded(seed) for seed in range(len(cases))]
    mixed = [image for pair in zip(good, cases, strict=True) for image in pair]
    results = Decoder().decode(mixed)
    assert results[::2] == [Decoded(16, 24, None)] * len(good)
    for result, words in zip(results[1::2], cases.values(), strict=True):
        assert isinstance(result, Undecodable)
        assert re.search(words, result.reason)
    assert capfd.readouterr().err == ""  # the libraries' own reports stay out of the user's sight


def test_header_reader_sees_only_headers(encoded):
    jpeg = encoded(5, size=(90, 60), kind="JPEG")
    whole, cut, garbage = HeaderReader().decode([jpeg, jpeg[:-200], b"hello, world"])
    assert whole == cut == Decoded(60, 90, None)
    assert isinstance(garbage, Undecodable)


def test_many_images_of_many_sizes_stay_in_order(encoded):
    sizes = [(8 + seed, 50 - seed) for seed in range(40)]
    results = Decoder().decode([encoded(seed, size=size) for seed, size in enumerate(sizes)])
    assert [(result.width, result.height) for result in results] == sizes
