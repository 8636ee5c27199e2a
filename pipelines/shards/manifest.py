"""The manifest of a shard set: what `dataset.json` and `samples.npy` say about the shards beside them.

A shard set is one folder of WebDataset tars, their DALI indexes, the table `samples.npy` (one row per sample, in
the order of the shards) and `dataset.json`, which is written last: a folder without it is not a shard set.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import atomic

MANIFEST_FILE = "dataset.json"
SAMPLES_FILE = "samples.npy"
PARTIAL_FOLDER = ".partial"  # exists while a conversion is under way
FORMAT = "webdataset"
FORMAT_VERSION = 1

SAMPLE_DTYPE = np.dtype(
    [
        ("shard", "<i4"),  # position in the manifest's list of shards
        ("offset", "<i8"),  # of the image's bytes in the tar
        ("size", "<i8"),  # of the image in bytes
        ("label", "<i4"),
        ("height", "<i4"),  # in pixels, as DALI decodes it: EXIF orientation applied
        ("width", "<i4"),
        ("name_offset", "<i8"),  # of the sample's original name in the tar, UTF-8
        ("name_size", "<i4"),
    ]
)


@dataclass(frozen=True)
class Shard:
    """One tar and its index: file names inside the set's folder, sizes in bytes, CRC-32 checksums."""

    file: str
    index: str
    samples: int
    bytes: int
    crc32: int
    index_bytes: int
    index_crc32: int


@dataclass(frozen=True)
class SamplesFile:
    """The table of samples as a file: its name, size in bytes and CRC-32 checksum."""

    file: str
    bytes: int
    crc32: int


@dataclass(frozen=True)
class Manifest:
    """Content of `dataset.json`.

    Attributes:
        encoding: "original" (image files as they came) or "raw" (uint8 RGB pixels, height x width x 3).
        raw_shape: (height, width, 3) of every image of a raw set, else None.
        classes: class names; a label is a position in this tuple.
        num_samples: samples in the set.
        largest: greatest height and greatest width of all images in pixels, not necessarily of one image.
        samples: the table of samples.
        shards: every shard, in order.
        created: how the set was made: source, source_format, seed, options.
        softfeed: version that wrote the set.
    """

    encoding: str
    raw_shape: tuple[int, int, int] | None
    classes: tuple[str, ...]
    num_samples: int
    largest: tuple[int, int]
    samples: SamplesFile
    shards: tuple[Shard, ...]
    created: Mapping[str, Any]
    softfeed: str = field(default_factory=lambda: version("softfeed"))


def write_samples(folder: Path, table: NDArray[Any]) -> SamplesFile:
    """Write the table of samples, dtype `SAMPLE_DTYPE`, shape (num_samples,), and return its entry."""
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    summary = atomic.write_file(folder / SAMPLES_FILE, buffer.getvalue())
    return SamplesFile(SAMPLES_FILE, summary.bytes, summary.crc32)


def write(folder: Path, manifest: Manifest) -> None:
    """Write `dataset.json`; call it last, since this makes `folder` a shard set."""
    atomic.write_file(folder / MANIFEST_FILE, to_json(manifest).encode())


def to_json(manifest: Manifest) -> str:
    """Text of `dataset.json`, the same for the same manifest."""
    content = asdict(manifest)
    content["largest"] = dict(zip(("height", "width"), manifest.largest, strict=True))
    head = {"format": FORMAT, "format_version": FORMAT_VERSION, "softfeed": content.pop("softfeed")}
    return json.dumps(head | content, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Manifest:
    """Manifest from the text of `dataset.json`.

    Raises:
        ValueError: if the text is no JSON, of another format or version, or lacks an entry.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{MANIFEST_FILE} must be JSON, got {error}; convert again") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"format in {MANIFEST_FILE} must be '{FORMAT}', got {found!r}; convert again")
    if content.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"format_version in {MANIFEST_FILE} must be {FORMAT_VERSION}, got {content.get('format_version')!r}; "
            "convert again with this softfeed, or open the set with the version that wrote it"
        )
    try:
        return _manifest_of(content)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{MANIFEST_FILE} must hold a whole manifest, got {error!r}; convert again") from None


def _manifest_of(content: dict[str, Any]) -> Manifest:
    raw_shape = content["raw_shape"]
    manifest = Manifest(
        encoding=content["encoding"],
        raw_shape=None if raw_shape is None else (int(raw_shape[0]), int(raw_shape[1]), int(raw_shape[2])),
        classes=tuple(content["classes"]),
        num_samples=int(content["num_samples"]),
        largest=(int(content["largest"]["height"]), int(content["largest"]["width"])),
        samples=SamplesFile(**content["samples"]),
        shards=tuple(Shard(**shard) for shard in content["shards"]),
        created=dict(content["created"]),
        softfeed=str(content["softfeed"]),
    )
    if manifest.encoding not in ("original", "raw") or (manifest.encoding == "raw") == (raw_shape is None):
        raise ValueError(f"encoding {manifest.encoding!r} with raw_shape {raw_shape}")
    return manifest
