"""What `convert` stores of images that are to be scaled, rewritten, normalised or kept as pixels."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps
from softfeed.pipelines.shards import job
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.decoding import MAX_PIXELS, Decoder, HeaderReader
from softfeed.pipelines.shards.encoding import decoded_by_pillow
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load


def _smooth(size, phase=0.0):
    """A picture that survives JPEG well: waves of colour."""
    y, x = np.mgrid[: size[1], : size[0]] / 12.0
    waves = [np.sin(x + phase), np.cos(y - phase), np.sin((x + y) / 2)]
    return Image.fromarray((127.5 + 120 * np.stack(waves, axis=-1)).astype(np.uint8))


def _file(picture, kind, **settings):
    file = io.BytesIO()
    picture.save(file, kind, **settings)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Writes files, by their names, below class folders, and returns the image folder."""

    def write(**files):
        for name, content in files.items():
            path = tmp_path / "images" / "a" / name.replace("_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tmp_path / "images"

    return write


def _converted(source, dest, read_samples, **options):
    outcome = convert(source, dest, ShardOptions(**options), workers=1, max_bad=9)
    return outcome, {name.rpartition("/")[2]: image for name, _, image in read_samples(load(dest))}


def _opened(image):
    return Image.open(io.BytesIO(image))


def test_only_larger_images_are_scaled_down(tmp_path, folder, read_samples):
    files = {
        "wide_jpg": _file(_smooth((120, 40)), "JPEG"),
        "high_png": _file(_smooth((30, 61)), "PNG"),
        "fits_jpg": _file(_smooth((60, 60)), "JPEG", quality=70),
        "small_png": _file(_smooth((20, 10)), "PNG"),
    }
    outcome, images = _converted(folder(**files), tmp_path / "set", read_samples, max_side=60)
    assert outcome.manifest.encoding == "rewritten"
    assert outcome.manifest.largest == (60, 60)
    assert (images["fits.jpg"], images["small.png"]) == (files["fits_jpg"], files["small_png"])
    for name, size, source in (("wide.jpg", (60, 20), (120, 40)), ("high.png", (30, 60), (30, 61))):
        picture = _opened(images[name])
        assert (picture.format, picture.size) == ("JPEG", size)
        expected = np.asarray(_smooth(source).resize(size, Image.Resampling.LANCZOS), float)
        assert abs(np.asarray(picture, float) - expected).mean() < 4
    table = load(tmp_path / "set").samples
    assert sorted(zip(table["height"].tolist(), table["width"].tolist(), strict=True)) == [
        (10, 20),
        (20, 60),
        (60, 30),
        (60, 60),
    ]


def _tables(image):
    return {number: tuple(table) for number, table in _opened(image).quantization.items()}


@pytest.mark.parametrize("quality", [30, 90])
def test_quality_rewrites_all(tmp_path, folder, read_samples, quality):
    files = {"one_jpg": _file(_smooth((50, 30)), "JPEG", quality=60), "two_png": _file(_smooth((20, 20)), "PNG")}
    _, images = _converted(folder(**files), tmp_path / "set", read_samples, quality=quality)
    expected = _tables(_file(_smooth((8, 8)), "JPEG", quality=quality))
    assert [_tables(image) for image in images.values()] == [expected] * 2


def _sampling(image):
    """Horizontal and vertical sampling factors of luma in a JPEG's frame header, next to chroma of 1x1."""
    start = next(image.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in image)
    factors = [image[start + 11 + 3 * channel] for channel in range(3)]
    assert factors[1:] == [0x11, 0x11]
    return factors[0] >> 4, factors[0] & 15


@pytest.mark.parametrize(("subsampling", "factors"), [("420", (2, 2)), ("422", (2, 1)), ("444", (1, 1))])
def test_subsampling_rewrites_all(tmp_path, folder, read_samples, subsampling, factors):
    files = {"one_jpg": _file(_smooth((50, 30)), "JPEG", subsampling=0), "two_png": _file(_smooth((20, 20)), "PNG")}
    _, images = _converted(folder(**files), tmp_path / "set", read_samples, subsampling=subsampling)
    assert [_sampling(image) for image in images.values()] == [factors] * 2


def test_default_is_420_of_quality_95(tmp_path, folder, read_samples):
    _, images = _converted(folder(a_png=_file(_smooth((50, 30)), "PNG")), tmp_path / "set", read_samples, max_side=20)
    assert _sampling(images["a.png"]) == (2, 2)
    assert _tables(images["a.png"]) == _tables(_file(_smooth((8, 8)), "JPEG", quality=95))


@pytest.mark.parametrize(("raw", "size"), [(16, (16, 16)), ((10, 20), (10, 20))])
def test_raw_of_a_size_resizes(tmp_path, folder, read_samples, raw, size):
    pictures = {"wide_png": _smooth((40, 20)), "high_png": _smooth((20, 50)), "same_png": _smooth((size[1], size[0]))}
    files = {name: _file(picture, "PNG") for name, picture in pictures.items()}
    outcome, images = _converted(folder(**files), tmp_path / "set", read_samples, raw=raw)
    assert outcome.manifest.raw_shape == (*size, 3)
    for name, picture in pictures.items():
        expected = picture.resize((size[1], size[0]), Image.Resampling.LANCZOS)
        assert images[name.replace("_", ".")] == expected.tobytes()


def _turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _odd_files():
    picture = _smooth((40, 24))
    deep = np.asarray(picture.convert("L"), np.uint16) * 257
    return {
        "cmyk_jpg": _file(picture.convert("CMYK"), "JPEG", quality=95),
        "misnamed_jpeg": _file(picture, "PNG"),
        "deep_png": _file(Image.fromarray(deep), "PNG"),
        "turned_jpg": _file(picture, "JPEG", exif=_turned(6), quality=95),
        "turned_webp": _file(picture, "WEBP", exif=_turned(6), lossless=True),  # DALI decodes no such file
        "alpha_png": _file(picture.convert("LA"), "PNG"),
        "moves_png": _file(picture, "PNG", save_all=True, append_images=[picture.rotate(180)]),
        "plain_jpg": _file(picture, "JPEG"),
        "plain_png": _file(picture, "PNG"),
    }


def test_odd_images_are_listed_and_kept(tmp_path, folder, read_samples):
    files = _odd_files()
    outcome, images = _converted(folder(**files), tmp_path / "set", read_samples)
    assert [image.name for image in outcome.bad] == ["a/turned.webp"]
    assert outcome.manifest.encoding == "original"
    assert images == {name.replace("_", "."): files[name] for name in files if name != "turned_webp"}
    listed = json.loads((tmp_path / "set" / "odd.json").read_text())
    assert {entry["name"]: entry["reason"] for entry in listed} == {
        "a/cmyk.jpg": "CMYK",
        "a/misnamed.jpeg": "png named jpg",
        "a/deep.png": "16 bits per channel",
        "a/turned.jpg": "turned by EXIF orientation 6",
        "a/alpha.png": "alpha channel",
        "a/moves.png": "animated",
    }
    assert not any(entry["rewritten"] for entry in listed)
    assert [image._asdict() for image in outcome.odd] == listed
    assert outcome.manifest.created["odd"] == 6


def _rgb(image):
    """Pixels upright, as floats; of 16 bits the upper 8."""
    opened = ImageOps.exif_transpose(_opened(image))
    if opened.mode == "I;16":
        opened = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
    return np.asarray(opened.convert("RGB"), float)


def test_odd_images_are_normalised(tmp_path, folder, read_samples):
    files = _odd_files()
    # RecordIO, too, since no name may change with the format
    outcome, images = _converted(folder(**files), tmp_path / "set", read_samples, normalize=True, format="recordio")
    assert outcome.bad == ()
    assert [image.rewritten for image in outcome.odd] == [True] * 7
    kinds = {}
    for name, content in files.items():
        image = images[name.replace("_", ".")]
        if name.startswith("plain"):
            assert image == content
            continue
        opened = _opened(image)
        assert (opened.mode, opened.getexif().get(0x0112, 1), getattr(opened, "n_frames", 1)) == ("RGB", 1, 1)
        assert abs(_rgb(image) - _rgb(content)).mean() < 3, name
        kinds[name] = opened.format
    assert kinds == {name: "JPEG" if name in ("cmyk_jpg", "misnamed_jpeg", "turned_jpg") else "PNG" for name in kinds}
    sizes = {(row["height"], row["width"]) for row in load(tmp_path / "set").samples}
    assert sizes == {(24, 40), (40, 24)}


def test_a_gif_becomes_its_first_frame(tmp_path, folder, read_samples):
    picture = _smooth((40, 24)).convert("P")
    gif = _file(picture, "GIF", save_all=True, append_images=[_smooth((40, 24), 1.0).convert("P")])
    source = folder(moves_png=gif, also_png=_file(picture, "PNG"))  # by its name no GIF, or it would be passed over
    outcome, _ = _converted(source, tmp_path / "kept", read_samples)
    assert [image.reason for image in outcome.bad] == [
        "GIF, which DALI does not decode; convert it to PNG, or --normalize"
    ]
    outcome, images = _converted(source, tmp_path / "set", read_samples, normalize=True)
    assert outcome.bad == ()
    assert _opened(images["moves.png"]).format == "PNG"
    np.testing.assert_array_equal(_rgb(images["moves.png"]), np.asarray(picture.convert("RGB"), float))


def test_damaged_images_are_not_normalised(tmp_path, folder, read_samples):
    jpeg = _file(_smooth((90, 60)), "JPEG")
    source = folder(cut_jpg=jpeg[: len(jpeg) // 2], text_jpg=b"hello, world", good_jpg=jpeg, empty_jpg=b"")
    outcome, images = _converted(source, tmp_path / "set", read_samples, normalize=True)
    assert sorted(image.name for image in outcome.bad) == ["a/cut.jpg", "a/empty.jpg", "a/text.jpg"]
    assert images == {"good.jpg": jpeg}


def test_jpeg_too_long_for_the_format_is_kept_lossless(tmp_path, folder, read_samples):
    source = folder(long_png=_file(Image.new("RGB", (65600, 3), "red"), "PNG"))
    _, images = _converted(source, tmp_path / "set", read_samples, quality=90)
    assert (_opened(images["long.png"]).format, _opened(images["long.png"]).size) == ("PNG", (65600, 3))


@pytest.mark.parametrize("options", [{"normalize": True}, {"max_side": 30}, {"quality": 40}, {"raw": 12}])
def test_two_workers_write_the_same_as_one(tmp_path, folder, content, options):
    source = folder(**_odd_files())
    for workers in (1, 2):
        convert(source, tmp_path / f"{workers}", ShardOptions(shard_samples=2, **options), workers=workers, max_bad=9)
    assert content(tmp_path / "1") == content(tmp_path / "2")


def _bombs():
    """Small files of many pixels, in formats that only Pillow decodes, though not so many that Pillow refuses them."""
    side = 9_000
    assert side * side > MAX_PIXELS
    gif = _file(Image.new("P", (side, side)), "GIF")
    assert len(gif) < 1_000_000
    webp = bytearray(_file(Image.new("RGB", (8, 8)), "WEBP", exif=_turned(6), lossless=True))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = (16_000 - 1).to_bytes(3, "little") * 2
    return {"gif": gif, "webp": bytes(webp)}


_MEASURE = """
import resource, sys
from pathlib import Path
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
outcome = convert(sys.argv[1], sys.argv[2], ShardOptions(normalize=True), workers=1, max_bad=9)
assert (len(outcome.bad), outcome.manifest.num_samples) == (2, 1), outcome
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_bombs_are_refused_before_they_are_opened(tmp_path, folder):
    bombs = _bombs()
    for bomb in bombs.values():
        assert decoded_by_pillow(bomb) is None
    good = _file(_smooth((40, 24)), "PNG")
    source = folder(good_png=good, **{f"{kind}_png": bomb for kind, bomb in bombs.items()})
    arguments = [sys.executable, "-c", _MEASURE, source, tmp_path / "set"]
    run = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 200_000  # kB; either would take gigabytes


def test_pixels_of_many_large_images_are_not_held_at_once(encoded):
    """The stream decodes a batch when it is asked for it."""
    image = encoded(0, size=(3000, 2000), kind="JPEG")
    assert 3000 * 2000 * 4 > 1 << 24
    assert MAX_PIXELS > 3000 * 2000
    runs = []
    decoder = Decoder(keep_pixels=True)
    decode = decoder._run
    decoder._run = lambda images: runs.append(len(images)) or decode(images)
    stream = decoder.stream([image] * 6)
    assert next(stream).pixels is not None
    assert runs == [1]  # its bytes fill a batch
    assert len(list(stream)) == 5
    assert sum(runs) == 6


def test_files_of_absurd_sizes_are_not_read(tmp_path, folder):
    source = folder(good_png=_file(_smooth((40, 24)), "PNG"))
    with (source / "a" / "huge.png").open("wb") as file:
        file.truncate(1 << 40)  # sparse: takes no room on the disk
    outcome = convert(source, tmp_path / "set", workers=1, max_bad=1)
    assert [(image.name, image.reason) for image in outcome.bad] == [
        ("a/huge.png", "1,099,511,627,776 bytes, more than 268,435,456")
    ]


def test_large_files_are_not_read_many_at_a_time(tmp_path, folder, monkeypatch):
    source = folder(**{f"a{row}_png": _file(_smooth((40, 24)), "PNG") for row in range(12)})
    for path in source.rglob("*.png"):
        with path.open("ab") as file:
            file.truncate(1_000_000)  # zeros behind the image
    held = []

    stream = HeaderReader.stream

    def watched(reader, images):
        held.append(sum(map(len, images)))
        return stream(reader, images)

    monkeypatch.setattr(HeaderReader, "stream", watched)
    monkeypatch.setattr(job, "_WINDOW_BYTES", 3_500_000)
    convert(source, tmp_path / "set", ShardOptions(check=False), workers=1)
    assert held == [3_000_000] * 4


def _refused(image, monkeypatch, plugin, name):
    """Whether an image is refused without its plugin getting it."""
    called = []
    Image.init()
    monkeypatch.setitem(Image.OPEN, name, (lambda *_: called.append(name) or plugin(*_), Image.OPEN[name][1]))
    return decoded_by_pillow(image) is None and not called


@pytest.mark.parametrize("kind", ["ICO", "ICNS", "EPS", "TGA"])
def test_other_formats_are_left_alone(monkeypatch, kind):
    """Some run programs, some hold an image of any size behind a small one."""
    Image.init()
    image = _file(_smooth((64, 64)), kind)
    assert _refused(image, monkeypatch, Image.OPEN[kind][0], kind)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "GIF"])
def test_usual_formats_are_opened(kind):
    found = decoded_by_pillow(_file(_smooth((40, 30)), kind))
    assert (found.height, found.width, len(found.pixels)) == (30, 40, 3600)


def test_several_pictures_in_a_jpeg_are_opened():
    image = _file(_smooth((40, 30)), "MPO", save_all=True, append_images=[_smooth((40, 30), 1)])
    assert decoded_by_pillow(image).width == 40
