import io
import re
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from softfeed.pipelines.shards.decoding import (
    MAX_PIXELS,
    Decoded,
    Decoder,
    HeaderReader,
    Undecodable,
    drop_readers,
    extension_of,
    kept_reader,
)


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


def _bombs(encoded):
    """Small files whose headers claim 16,000 x 16,000 pixels or more."""
    side = 16_000
    bombs = {kind: bytearray(encoded(6, kind=kind)) for kind in ("PNG", "JPEG", "BMP", "TIFF", "JPEG2000")}
    bombs["PNG"][16:24] = struct.pack(">II", side, side)
    frame = bombs["JPEG"].index(b"\xff\xc0")
    bombs["JPEG"][frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    bombs["BMP"][18:26] = struct.pack("<ii", side, side)
    for tag in (256, 257):
        place = bombs["TIFF"].index(struct.pack("<HHI", tag, 4, 1)) + 8
        bombs["TIFF"][place : place + 4] = struct.pack("<I", side)
    for start, sides in (("ihdr", (side, side)), ("\xff\x51", ())):
        place = bombs["JPEG2000"].index(start.encode("latin1"))
        if sides:
            bombs["JPEG2000"][place + 4 : place + 12] = struct.pack(">II", *sides)
        else:
            bombs["JPEG2000"][place + 6 : place + 14] = struct.pack(">II", side, side)
    bombs["PPM"] = b"P6 16000 16000 255\n" + bytes(100)
    bombs["WEBP"] = b"RIFF" + struct.pack("<I", 200) + b"WEBPVP8L" + struct.pack("<I", 188) + b"\x2f"
    bombs["WEBP"] += ((side - 1) | (side - 1) << 14).to_bytes(4, "little") + bytes(183)
    return {kind: bytes(bomb) for kind, bomb in bombs.items()}


def test_decompression_bombs_are_refused(encoded):
    for kind, bomb in _bombs(encoded).items():
        for reader in (Decoder(), HeaderReader()):
            good, refused, also_good = reader.decode([encoded(1), bomb, encoded(2)])
            assert good == also_good == Decoded(16, 24, None)
            assert isinstance(refused, Undecodable), kind
            assert refused.reason == f"16000 x 16000 pixels, more than {MAX_PIXELS:,} in all", kind


_MEASURE = """
import resource, sys
from pathlib import Path
from softfeed.pipelines.shards.decoding import Decoder, Undecodable
decoder = Decoder()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
results = decoder.decode([path.read_bytes() for path in Path(sys.argv[1]).iterdir()])
assert all(isinstance(result, Undecodable) for result in results)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_decompression_bombs_take_no_memory(encoded, tmp_path):
    for kind, bomb in _bombs(encoded).items():
        (tmp_path / kind).write_bytes(bomb)
    # Pillow would take 768 MB for one of them
    run = subprocess.run([sys.executable, "-c", _MEASURE, tmp_path], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 100_000  # kB


def test_readers_are_built_once_per_thread_and_process(encoded):
    image = encoded(0)
    first = kept_reader(check=True)
    assert kept_reader(check=True) is first
    assert kept_reader(check=False) is not first
    assert kept_reader(check=True, keep_pixels=True) is not first
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(lambda: (kept_reader(check=True), kept_reader(check=True).decode([image]))).result()
    assert other[0] is not first
    assert other[1] == first.decode([image])
    drop_readers()
    assert kept_reader(check=True) is not first


def test_headers_of_many_images_come_in_order(encoded):
    """More than one run reads, one of them with an image that fails it."""
    sizes = [(20 + number % 7, 10 + number % 5) for number in range(150)]
    images = [encoded(number, size=size, kind="JPEG") for number, size in enumerate(sizes)]
    images[70] = images[70][:30]
    found = HeaderReader().decode(images)
    assert isinstance(found[70], Undecodable)
    assert [(each.width, each.height) for number, each in enumerate(found) if number != 70] == [
        size for number, size in enumerate(sizes) if number != 70
    ]
