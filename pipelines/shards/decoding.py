"""Decoding images as the loader will: with DALI's CPU decoder, so that what passes here decodes in training."""

import io
import os
import struct
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def
from PIL import Image

from ..forks import left_alone, new_lock

_BATCH = 16  # images per run of the graph
_BATCH_BYTES = 1 << 20  # encoded; DALI keeps room for the largest batch seen, so large images go few at a time
_BATCH_PIXELS = 1 << 24
_HEADER_BATCH = 64  # the same for headers, where a run costs more than what it does
_HEADER_BYTES = 8 << 20
MAX_PIXELS = 1 << 26  # of an image; some formats take 15 bytes a pixel to decode
# Without set_affinity=False the decoding thread of every worker process would be pinned to the same first core.
_SETTINGS = {
    "batch_size": _BATCH,
    "num_threads": 1,
    "device_id": None,
    "prefetch_queue_depth": 1,
    "set_affinity": False,
}
_PNG_SIZE = slice(16, 24)  # width and height
_STDERR = 2
PILLOW_ERRORS = (  # what Pillow raises for damaged files
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    RuntimeError,
    MemoryError,
    Image.DecompressionBombError,
)
# All that is opened with Pillow: others of its formats run programs (EPS), or hold an image of another size than they
# say (ICO, ICNS).
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "GIF")
_stderr_lock = new_lock()
_stderr: list[int] = []  # the real one, while it is silenced

_SIGNATURES = (  # first bytes, extension
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"II+\0", "tif"),
    (b"MM\0+", "tif"),
    *((f"P{kind}".encode(), "pnm") for kind in (1, 2, 3, 4)),
    (b"P5", "pgm"),
    (b"P6", "ppm"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"GIF8", "gif"),
)


class Decoded(NamedTuple):
    """Size of an image in pixels, EXIF orientation applied, and its uint8 RGB pixels, row by row, if asked for."""

    height: int
    width: int
    pixels: bytes | None


class Undecodable(NamedTuple):
    """Why an image cannot be decoded, in a few words."""

    reason: str


def extension_of(data: bytes) -> str | None:
    """Usual extension of an image file, by its first bytes; None if they are no image's."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((extension for signature, extension in _SIGNATURES if data.startswith(signature)), None)


@pipeline_def(enable_conditionals=False)
def decode_graph():
    """Encoded bytes to pixels: uint8 (height, width, 3), RGB, EXIF orientation applied."""
    encoded = fn.external_source(name="encoded", dtype=types.DALIDataType.UINT8, ndim=1)
    return fn.decoders.image(encoded, device="cpu", output_type=types.DALIImageType.RGB)


@pipeline_def(enable_conditionals=False)
def header_graph():
    """Encoded bytes to the shape in the header: int64 (3,), EXIF orientation applied."""
    encoded = fn.external_source(name="encoded", dtype=types.DALIDataType.UINT8, ndim=1)
    return fn.peek_image_shape(encoded)


class HeaderReader:
    """Reads only the header of every image: fast, but finds no damage behind it.

    Images of more than `MAX_PIXELS` are refused: a file of a few kilobytes can claim to be one, to fill the memory of
    whoever decodes it.
    """

    def __init__(self) -> None:
        self._graph = left_alone(header_graph(**_SETTINGS | {"batch_size": _HEADER_BATCH}))

    def decode(self, images: Sequence[bytes]) -> list[Decoded | Undecodable]:
        """Size of every image; one result for each, in order."""
        return list(self.stream(images))

    def stream(self, images: Sequence[bytes]) -> Iterator[Decoded | Undecodable]:
        """The same one by one."""
        batches = _batches(images, most=_HEADER_BATCH, most_bytes=_HEADER_BYTES)
        return (result for batch in batches for result in self._decode_or_split(batch))

    def _decode_or_split(self, images: list[bytes]) -> list[Decoded | Undecodable]:
        # One bad image fails a whole batch in DALI, so a batch that failed goes through again image by image.
        if len(images) == 1 and (reason := _hopeless(images[0])):
            return [Undecodable(reason)]
        try:
            if any(map(_hopeless, images)):
                raise RuntimeError("a batch with an image that DALI is not to see")
            return self._run(images)
        except RuntimeError as error:
            if len(images) == 1:
                return [Undecodable(_diagnosis(images[0], error))]
            return [result for image in images for result in self._decode_or_split([image])]

    def _run(self, images: list[bytes]) -> list[Decoded | Undecodable]:
        self._graph.feed_input("encoded", [np.frombuffer(image, dtype=np.uint8) for image in images])
        with _silence():
            (output,) = self._graph.run()
        shapes = np.asarray(output.as_tensor()).tolist()
        return [_within_limit(height, width) for height, width, _ in shapes]


class Decoder(HeaderReader):
    """Decodes every image whole, which finds those that are cut short or damaged.

    Args:
        keep_pixels: return the pixels, not only the size.
    """

    def __init__(self, *, keep_pixels: bool = False) -> None:
        self._keep_pixels = keep_pixels
        self._headers = HeaderReader()
        self._graph = left_alone(decode_graph(**_SETTINGS))

    def decode(self, images: Sequence[bytes]) -> list[Decoded | Undecodable]:
        """Decode encoded images; one result for each, in order."""
        return list(self.stream(images))

    def stream(self, images: Sequence[bytes]) -> Iterator[Decoded | Undecodable]:
        """The same one by one, so that the pixels of few of them are in memory at a time."""
        results = self._sizes(images)
        sizes = [result.height * result.width for result in results if isinstance(result, Decoded)]
        good = [image for image, result in zip(images, results, strict=True) if isinstance(result, Decoded)]
        decoded = (result for batch in _batches(good, sizes) for result in self._decode_or_split(batch))
        for result in results:
            yield next(decoded) if isinstance(result, Decoded) else result

    def _sizes(self, images: Sequence[bytes]) -> list[Decoded | Undecodable]:
        """Sizes by the headers alone."""
        results = [_png_size(image) for image in images]  # of small ones there are many, so not through a graph
        others = [image for image, result in zip(images, results, strict=True) if result is None]
        sizes = iter(self._headers.decode(others))
        return [result or next(sizes) for result in results]

    def _run(self, images: list[bytes]) -> list[Decoded | Undecodable]:
        self._graph.feed_input("encoded", [np.frombuffer(image, dtype=np.uint8) for image in images])
        with _silence():
            (output,) = self._graph.run()
        if not self._keep_pixels:
            return [Decoded(int(height), int(width), None) for height, width, _ in output.shape()]
        pixels = [np.asarray(output.at(position)) for position in range(len(images))]
        return [Decoded(image.shape[0], image.shape[1], image.tobytes()) for image in pixels]


class _Kept(threading.local):
    """Readers of one thread, by whether they decode and keep pixels."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.readers: dict[tuple[bool, bool], HeaderReader] = {}
        self.inherited: dict[tuple[bool, bool], HeaderReader] = {}


_kept = _Kept()


def kept_reader(*, check: bool, keep_pixels: bool = False) -> HeaderReader:
    """A reader of this thread that is built once: that takes as long as reading hundreds of headers.

    Args:
        check: a `Decoder`; if False a `HeaderReader`.
        keep_pixels: as `Decoder`.
    """
    if _kept.process != os.getpid():
        # A fork has none of the threads of the graphs that it inherited, and must not end them either.
        _kept.process, _kept.inherited, _kept.readers = os.getpid(), _kept.readers, {}
    key = (check, keep_pixels)
    if key not in _kept.readers:
        _kept.readers[key] = Decoder(keep_pixels=keep_pixels) if check else HeaderReader()
    return _kept.readers[key]


def drop_readers() -> None:
    """Free the memory of this thread's readers."""
    _kept.readers.clear()


def _within_limit(height: int, width: int) -> Decoded | Undecodable:
    if height * width > MAX_PIXELS:
        return Undecodable(f"{height} x {width} pixels, more than {MAX_PIXELS:,} in all")
    return Decoded(height, width, None)


def _png_size(image: bytes) -> Decoded | Undecodable | None:
    """Size that the first chunk of a PNG states, not turned by EXIF; None for what is no PNG."""
    if extension_of(image) != "png" or image[12:16] != b"IHDR" or len(image) < _PNG_SIZE.stop:
        return None
    width, height = struct.unpack(">II", image[_PNG_SIZE])
    return _within_limit(height, width)


@contextmanager
def _silence() -> Iterator[None]:
    """Keep the decoders' libraries from writing to stderr about images that we are about to report ourselves."""
    with _stderr_lock:
        _stderr.append(os.dup(_STDERR))
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, _STDERR)
            os.close(null)
            yield
        finally:
            _speak_again()


def _speak_again() -> None:
    while _stderr:
        os.dup2(_stderr[-1], _STDERR)  # before it is forgotten, as Ctrl-C may come in between
        os.close(_stderr.pop())


os.register_at_fork(after_in_child=_speak_again)


def _batches(
    images: Sequence[bytes],
    pixels: Sequence[int] | None = None,
    *,
    most: int = _BATCH,
    most_bytes: int = _BATCH_BYTES,
) -> Iterator[list[bytes]]:
    """Images in groups of few enough bytes and, if their numbers of pixels are given, pixels."""
    batch: list[bytes] = []
    size = area = 0
    for image, count in zip(images, pixels or [0] * len(images), strict=True):
        if batch and (len(batch) == most or size + len(image) > most_bytes or area + count > _BATCH_PIXELS):
            yield batch
            batch, size, area = [], 0, 0
        batch.append(image)
        size += len(image)
        area += count
    if batch:
        yield batch


def _hopeless(image: bytes) -> str | None:
    """Reason to refuse an image without asking DALI, or None."""
    if not image:
        return "empty"
    extension = extension_of(image)
    if extension is None:
        return f"not an image (starts with {image[:8].hex(' ')})"
    return "GIF, which DALI does not decode; convert it to PNG, or --normalize" if extension == "gif" else None


@contextmanager
def no_warnings() -> Iterator[None]:
    """Keep Pillow's warnings about odd files from the user."""
    with warnings.catch_warnings():  # `action` is an argument of it since Python 3.11
        warnings.simplefilter("ignore")
        yield


def _diagnosis(image: bytes, error: RuntimeError) -> str:
    """Plain words for a failed decode: Pillow's if it fails too, since DALI's are mostly a traceback."""
    extension = extension_of(image)
    try:
        with no_warnings(), Image.open(io.BytesIO(image), formats=PILLOW_FORMATS) as opened:
            if opened.width * opened.height <= MAX_PIXELS:
                opened.convert("RGB")
    except PILLOW_ERRORS as trouble:
        return f"{extension} cut short or damaged ({trouble})"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = next((line for line in reversed(lines) if not line.startswith(("[", "Current pipeline"))), "no reason")
    return f"{extension} that DALI does not decode ({said})"
