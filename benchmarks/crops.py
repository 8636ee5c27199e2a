"""What soft crops cost: against the hard crops, DALI's plain graph, and torchvision's loader doing the same.

`python -m softfeed.benchmarks.crops IMAGE_FOLDER` measures crop-and-resize on encoded images; with `--raw SHARD_SET`
(what `softfeed convert --raw` wrote) also the fixed-size crop on raw ones. One epoch of each contender in turn,
float32 output, medians of the repeats. `--output` writes JSON for `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..pipelines import Loader, presets
from ..pipelines.process import default_threads
from ..pipelines.reading import SampleReader
from ..pipelines.shards.folder import scan_image_folder
from ..pipelines.sources import open_source
from .errors import in_one_line
from .measurement import Contender, Rate, measure, write_result
from .pillow_loaders import SoftArrayImages, SoftImageFolder, data_loader


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m softfeed.benchmarks.crops", description=__doc__)
    parser.add_argument("folder", type=Path, help="image folder")
    parser.add_argument("--raw", type=Path, help="shard set of small raw images")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--workers", type=int, default=2, help="workers of a DataLoader")
    parser.add_argument("--threads", type=int, help="threads of a graph (default: the loader's own choice)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--copies", type=int, default=4, help="how often the folder's images are played per epoch")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--device", default="cpu", help="device of the graphs: cpu or cuda")
    return parser.parse_args(arguments)


def _repeated_folder(folder: Path, copies: int, root: Path) -> Path:
    """A folder of links with every image several times, so that an epoch is long against its beginning and end."""
    paths, labels, classes = scan_image_folder(folder)
    for name in classes:
        (root / name).mkdir()
    for number, (path, label) in enumerate(zip(paths, labels, strict=True)):
        for copy in range(copies):
            link = f"{copy}-{number:08d}{Path(path).suffix}"
            (root / classes[label] / link).symlink_to(Path(path).resolve())
    return root


def _softfeed(loader: Loader) -> Contender:
    def epoch() -> Iterable[int]:
        for batch in loader:
            yield len(batch.images)
        if loader.device.type == "cuda":
            import torch

            torch.cuda.synchronize()

    return epoch


def _plain_dali(folder: Path, options: argparse.Namespace) -> Contender:
    """DALI's own ImageNet graph: its reader, its random crop, its iterator's hand-over without a copy."""
    import torch
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import pipeline_def

    normalize = presets.by_name("hard-imagenet").normalize
    on_gpu = options.device != "cpu"
    device_id: Any = 0 if on_gpu else None  # DALI's types leave out the None that its documentation names

    @pipeline_def(
        batch_size=options.batch_size,
        num_threads=options.threads or default_threads(raw=False),
        device_id=device_id,
        prefetch_queue_depth=2,
    )
    def graph() -> tuple:
        encoded, labels = fn.readers.file(
            file_root=str(folder), random_shuffle=True, pad_last_batch=True, name="reader"
        )
        images = fn.decoders.image_random_crop(
            encoded, device="mixed" if on_gpu else "cpu", random_area=[0.08, 1], random_aspect_ratio=[3 / 4, 4 / 3]
        )
        images: Any = fn.resize(
            images, size=[options.image_size] * 2, interp_type=types.DALIInterpType.INTERP_LINEAR, antialias=True
        )
        images = fn.crop_mirror_normalize(
            images,
            mirror=fn.random.coin_flip(),
            mean=[255 * value for value in normalize.mean],
            std=[255 * value for value in normalize.std],
            dtype=types.DALIDataType.FLOAT,
            output_layout="CHW",
        )
        return images, labels

    pipeline = graph()
    pipeline.build()
    steps = pipeline.reader_meta("reader")["epoch_size"] // options.batch_size

    def epoch() -> Iterable[int]:
        for _ in range(steps):
            images, _ = pipeline.run()
            yield len(torch.from_dlpack(images.as_tensor()))

    return epoch


def _pillow(dataset, options: argparse.Namespace) -> Contender:
    loader = data_loader(dataset, options.batch_size, options.workers)

    def epoch() -> Iterable[int]:
        for images, _, _ in loader:
            yield len(images)

    return epoch


def _encoded_contenders(folder: Path, options: argparse.Namespace) -> dict[str, Contender]:
    def loader(preset: str) -> Contender:
        recipe = presets.by_name(preset)
        settings = {"num_threads": options.threads, "device": options.device}
        return _softfeed(Loader(folder, recipe, options.batch_size, options.image_size, **settings))

    soft = presets.by_name("soft-imagenet")
    return {
        "soft crop": loader("soft-imagenet"),
        "hard crop (RandomResizedCrop)": loader("hard-imagenet"),
        "plain DALI graph, hard crop": _plain_dali(folder, options),
        "DataLoader with Pillow, soft crop": _pillow(SoftImageFolder(folder, soft, options.image_size), options),
    }


def _raw_contenders(data: Path, options: argparse.Namespace) -> dict[str, Contender]:
    source = open_source(data)
    if source.raw_shape is None:
        raise ValueError(f"raw must be a shard set of raw images, got {data}; write one with softfeed convert --raw")
    size = source.raw_shape[0]

    def loader(preset: str) -> Contender:
        settings = {"num_threads": options.threads, "device": options.device}
        return _softfeed(Loader(data, presets.by_name(preset), options.batch_size, size, **settings))

    few = np.arange(min(len(source), 10_000))  # the DataLoader's rate does not depend on how many there are
    images = SampleReader(source).read(few)
    soft = presets.by_name("soft-cifar")
    dataset = SoftArrayImages(np.asarray(images), source.labels[few], soft, len(source.classes))
    return {
        "raw soft shift": loader("soft-cifar"),
        "raw hard crop (PadCrop)": loader("hard-cifar"),
        "raw DataLoader with Pillow, soft shift": _pillow(dataset, options),
    }


def _ratios(rates: dict[str, Rate]) -> dict[str, float]:
    """Median over repeats of the ratio within a repeat: what the machine does to both cancels out."""
    pairs = [
        ("soft crop", "hard crop (RandomResizedCrop)"),
        ("soft crop", "plain DALI graph, hard crop"),
        ("soft crop", "DataLoader with Pillow, soft crop"),
        ("raw soft shift", "raw hard crop (PadCrop)"),
        ("raw soft shift", "raw DataLoader with Pillow, soft shift"),
    ]
    return {
        f"{a} / {b}": float(np.median(np.array(rates[a].images_per_s) / np.array(rates[b].images_per_s)))
        for a, b in pairs
        if a in rates and b in rates
    }


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status."""
    options = _parse(arguments)
    rates: dict[str, Rate] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = _repeated_folder(options.folder, options.copies, Path(scratch))
        rates |= measure(_encoded_contenders(folder, options), repeats=options.repeats, report=print)
    if options.raw:
        rates |= measure(_raw_contenders(options.raw, options), repeats=options.repeats, report=print)
    ratios = _ratios(rates)
    print("\n".join(map(str, rates.values())))
    print("\n".join(f"{name:<80} {ratio:.2f}" for name, ratio in ratios.items()))
    if options.output:
        # the folders' names say enough; their paths are nobody's business
        words = [Path(word).name if Path(word).exists() else word for word in arguments or sys.argv[1:]]
        command = "python -m softfeed.benchmarks.crops " + shlex.join(words)
        settings = {
            name: getattr(options, name)
            for name in ("batch_size", "image_size", "threads", "workers", "device", "copies")
        }
        write_result(options.output, command, rates, {"settings": settings, "ratios": ratios})
    return 0


if __name__ == "__main__":
    sys.exit(main())
