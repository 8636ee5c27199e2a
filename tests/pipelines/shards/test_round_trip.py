"""A data set through every format and back: the same bytes, labels and names, and the same pixels out of DALI.

With SOFTFEED_IMAGES set to an image folder, or SOFTFEED_PARQUET to a folder of Parquet files in the layout of data set
hubs, `make test-slow` does the same with those (both take minutes).
"""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.shards.sources.opening import SourceOptions, open_source
from softfeed.pipelines.shards.verification.verify import verify

CHAIN = ("webdataset", "tfrecord", "recordio", "webdataset", "recordio", "tfrecord", "webdataset")


def _pixels(image):
    """What Pillow decodes, upright."""
    with Image.open(io.BytesIO(image)) as opened:
        return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))


def _check_chain(source, expected, classes, tmp_path, read_samples, by_dali):
    """Convert from each format of the chain to the next, and compare every set with `{name: (label, bytes)}`.

    Every format comes from every other one; the last set was in each of them twice.
    """
    for step, name in enumerate(CHAIN):
        dest = tmp_path / f"step{step}"
        convert(source, dest, ShardOptions(format=name, seed=step))
        shards = load(dest)
        assert shards.manifest.classes == classes
        samples = read_samples(shards)
        assert {sample: (label, image) for sample, label, image in samples} == expected
        assert len(samples) == len(expected)
        assert verify(dest).ok
        if step < 3:  # once per format
            decoded = by_dali(shards, decode=True)
            for (_, label, image), (found, pixels) in zip(samples, decoded, strict=True):
                assert found == label
                np.testing.assert_array_equal(pixels, _pixels(image))
        if step:
            shutil.rmtree(tmp_path / f"step{step - 1}")
        source = open_source(dest)


def _folder_content(root):
    """Samples and classes of an image folder, found without softfeed."""
    classes = tuple(sorted(path.name for path in root.iterdir() if path.is_dir()))
    files = [(path, label) for label, name in enumerate(classes) for path in (root / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): (label, path.read_bytes()) for path, label in files}, classes


def _parquet_content(root, split):
    """Samples and classes of Parquet files of one split, found without softfeed."""
    expected, names = {}, ()
    for path in sorted(root.rglob(f"{split}*.parquet")):
        table = pq.read_table(path)
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        names = tuple(features["fine_label"]["names"])
        rows = zip(table["img"].to_pylist(), table["fine_label"].to_pylist(), strict=True)
        for row, (image, label) in enumerate(rows):
            expected[f"{path.relative_to(root)}/{row}"] = (label, image["bytes"])
    return expected, names


def test_a_folder_through_every_format(tmp_path, image_folder, read_samples, by_dali):
    source = image_folder(classes=3, each=7, size=(40, 30), kind="JPEG")
    _check_chain(source, *_folder_content(source), tmp_path, read_samples, by_dali)


def test_parquet_through_every_format(tmp_path, parquet_file, encoded, read_samples, by_dali):
    images = [encoded(seed) for seed in range(20)]
    path = parquet_file("test-00000-of-00001.parquet", images=images, labels=[0, 1] * 10, names=["größe", "b c"])
    _check_chain(path.parent, *_parquet_content(path.parent, "test"), tmp_path, read_samples, by_dali)


@pytest.mark.slow
def test_your_images_through_every_format(tmp_path, read_samples, by_dali):
    if "SOFTFEED_IMAGES" not in os.environ:
        pytest.skip("SOFTFEED_IMAGES must name an image folder")
    source = Path(os.environ["SOFTFEED_IMAGES"])
    _check_chain(source, *_folder_content(source), tmp_path, read_samples, by_dali)


@pytest.mark.slow
@pytest.mark.parametrize("split", ["train", "test"])
def test_your_parquet_files_through_every_format(tmp_path, read_samples, by_dali, split):
    if "SOFTFEED_PARQUET" not in os.environ:
        pytest.skip("SOFTFEED_PARQUET must name a folder of Parquet files with columns img and fine_label")
    root = Path(os.environ["SOFTFEED_PARQUET"])
    source = open_source(root, SourceOptions(split=split))
    _check_chain(source, *_parquet_content(root, split), tmp_path, read_samples, by_dali)
