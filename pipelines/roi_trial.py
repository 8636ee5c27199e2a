"""The trial of decoding parts of images, in a process of its own, see `roi_probe`.

`python -m softfeed.pipelines.roi_trial cuda` makes it by hand; `cuda simple` does so without interpolated chroma.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from .decoder import Decoder

VERSION = 2  # a verdict on another one says nothing
WHOLE_IMAGES_DECODED = "whole images decoded"  # printed; what fails before is not the fault of parts
_WRONG_PIXELS = 3  # exit status

# Mean difference of a part, out of 255. Engines of one GPU may round a single pixel differently by about 6: by one
# value in luma and one or two in chroma, of which 1.8 times as much is blue. An ordinary part that lies a pixel off
# differs by more than 20.
_TOLERANCE = 8.0


@dataclass(frozen=True)
class _Photograph:
    """A JPEG.

    Attributes:
        encoded: Its bytes, uint8 (bytes,).
        sides: Height and width in pixels, once it is turned as its EXIF orientation says.
        kind: Its chroma subsampling, "grey" if it has no chroma.
    """

    encoded: np.ndarray
    sides: tuple[int, int]
    kind: str


_KINDS = ("4:4:4", "4:2:0", "4:2:2", "grey")  # a mixture goes through other code than images of one kind
_ORIENTATION = 0x0112  # EXIF tag


def _photographs(rng: np.random.Generator, count: int) -> list[_Photograph]:
    """JPEGs of many sizes and of all kinds, some to be turned, on which a shift by one pixel shows."""
    from PIL import Image

    photographs = []
    for number in range(count):
        kind = _KINDS[number % len(_KINDS)]
        height, width = (int(side) for side in rng.integers(40, 700, 2))
        image = Image.fromarray(_textured(rng, height, width))
        exif = Image.Exif()
        if turned := number // len(_KINDS) % 4 == 3:
            exif[_ORIENTATION] = 6
        options: dict[str, Any] = {} if kind == "grey" else {"subsampling": kind}
        file = io.BytesIO()
        (image.convert("L") if kind == "grey" else image).save(file, "JPEG", quality=90, exif=exif, **options)
        sides = (width, height) if turned else (height, width)
        photographs.append(_Photograph(np.frombuffer(file.getvalue(), np.uint8), sides, kind))
    return photographs


def _textured(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Pixels with light and dark patches of a few pixels on coloured ground, uint8 (height, width, 3)."""
    from PIL import Image

    def enlarged(coarse: np.ndarray) -> np.ndarray:
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        return np.asarray(image, np.float32)

    ground = enlarged(rng.integers(60, 196, (8, 8, 3), np.uint8))
    patches = enlarged(rng.integers(0, 256, (height // 3 + 1, width // 3 + 1), np.uint8))
    return np.clip(ground + (patches[:, :, None] - 128) * 0.9, 0, 255).astype(np.uint8)


def _parts(rng: np.random.Generator, sides: np.ndarray) -> dict[str, np.ndarray]:
    """A part of each image as the graph takes it, int32 (N, 2): of any size and place, and in corners, down to a pixel.

    The loader asks for single pixels where a window shows nothing of an image.

    Args:
        rng: What to draw from.
        sides: Height and width of the images in pixels, (N, 2).
    """
    numbers = np.arange(len(sides))
    shape = numbers % 8
    extent = np.ceil(sides * rng.uniform(0.1, 1, sides.shape))
    extent[shape == 1, 1] = sides[shape == 1, 1]
    extent[shape == 2, 0] = sides[shape == 2, 0]
    extent[np.isin(shape, (0, 1, 3)), 0] = 1
    extent[np.isin(shape, (0, 2, 4)), 1] = 1
    start = np.floor((sides - extent) * rng.uniform(0, 1, sides.shape))
    in_corner = shape < 6
    corner = np.stack([numbers // 8 % 2, numbers // 16 % 2], axis=1)
    start[in_corner] = ((sides - extent) * corner)[in_corner]
    return {"start": start.astype(np.int32), "extent": extent.astype(np.int32)}


_Batch = tuple[list[_Photograph], dict[str, np.ndarray]]


def _batches(rng: np.random.Generator, rounds: int, batch_size: int) -> list[_Batch]:
    """Photographs and parts of them, no two batches alike: mixtures, and every third of one kind only."""
    photographs = _photographs(rng, 96)
    batches = []
    for number in range(rounds):
        kinds = ("4:2:0",) if number % 3 == 2 else _KINDS
        fitting = [photograph for photograph in photographs if photograph.kind in kinds]
        chosen = [fitting[index] for index in rng.integers(len(fitting), size=batch_size)]
        batches.append((chosen, _parts(rng, np.array([photograph.sides for photograph in chosen]))))
    return batches


def _graph(decoder: Decoder, batch_size: int) -> Any:
    """A pipeline that decodes parts of images."""
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import pipeline_def

    from .decoder import visible_part

    @pipeline_def
    def graph() -> Any:
        encoded = fn.external_source(name="encoded", dtype=types.DALIDataType.UINT8, ndim=1)
        rectangle = {
            name: fn.external_source(name=name, dtype=types.DALIDataType.INT32, ndim=1) for name in ("start", "extent")
        }
        return visible_part(encoded, rectangle, decoder)

    return graph(batch_size=batch_size, num_threads=4, device_id=decoder.device_id, prefetch_queue_depth=1)


def _decoded(batches: list[_Batch], decoder: Decoder) -> Iterator[list[np.ndarray]]:
    """The parts of each batch, uint8 HWC; from one pipeline, as DALI uses objects again from the second batch on."""
    graph = _graph(decoder, len(batches[0][0]))
    for photographs, rectangles in batches:
        graph.feed_input("encoded", [photograph.encoded for photograph in photographs])
        for name, value in rectangles.items():
            graph.feed_input(name, value)
        (parts,) = graph.run()
        yield [np.array(part) for part in (parts if decoder.device_id is None else parts.as_cpu())]


def main(device: str = "cuda", upsampling: str = "fancy", *, rounds: int = 6, batch_size: int = 64) -> int:
    """Decode parts of images and compare them with parts of whole images; the exit status.

    Args:
        device: Where to decode.
        upsampling: "fancy" for interpolated chroma, "simple" for repeated.
        rounds: Batches, of which each third is of one kind of images.
        batch_size: Images of a batch; from 32 on, all corners, and enough for the JPEG engines to take a batch of them.
    """
    from .decoder import Decoder

    chosen = torch.device(device)
    device_id = None if chosen.type == "cpu" else chosen.index or 0
    decoder = Decoder(device_id, fancy_upsampling={"fancy": True, "simple": False}[upsampling])
    batches = _batches(np.random.default_rng(0), rounds, batch_size)
    whole = list(_decoded(batches, replace(decoder, roi=False)))
    print(WHOLE_IMAGES_DECODED, flush=True)  # noqa: T201 - for the parent
    for (photographs, _), parts, expected in zip(batches, _decoded(batches, decoder), whole, strict=True):
        for photograph, part, right in zip(photographs, parts, expected, strict=True):
            difference = np.abs(part.astype(np.float32) - right).mean() if part.shape == right.shape else np.inf
            if difference > _TOLERANCE:
                what = f"{'x'.join(map(str, right.shape[:2]))} pixels of a {photograph.kind} image"
                print(f"a part, {what}, differs by {difference:.0f} of 255", file=sys.stderr)  # noqa: T201
                return _WRONG_PIXELS
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
