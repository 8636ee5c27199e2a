"""Small sources to convert, made from seeded noise."""

import importlib.util
import io
import json
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def
from nvidia.dali.tfrecord import FixedLenFeature, int64, string
from PIL import Image
from softfeed.pipelines.reading import SampleReader
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.sources import open_source


def _encoded(seed, *, size=(24, 16), kind="PNG", **settings):
    """An image file of `size` (width, height) as bytes; noise, so that no two are alike."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **settings)
    return file.getvalue()


@pytest.fixture(scope="session")
def encoded():
    return _encoded


@pytest.fixture
def image_folder(tmp_path):
    """Writes an image folder of `classes` x `each` PNG files of one size and returns its path."""

    def write(classes=3, each=4, **settings):
        root = tmp_path / "images"
        for label in range(classes):
            (root / f"class{label}").mkdir(parents=True)
            for number in range(each):
                path = root / f"class{label}" / f"{number:03d}.png"
                path.write_bytes(_encoded(label * 1000 + number, **settings))
        return root

    return write


@pytest.fixture
def parquet_file(tmp_path):
    """Writes a Parquet file of images in the layout of data set hubs and returns its path."""

    def write(
        name="train-00000-of-00001.parquet", *, images, labels, names=None, columns=("img", "fine_label"), **more
    ):
        features = {columns[1]: {"names": names}} if names else {}
        table = pa.table(
            {
                columns[0]: pa.array(
                    [{"bytes": image, "path": None} for image in images],
                    pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
                ),
                columns[1]: pa.array(labels, pa.int64()),
                **more,
            }
        ).replace_schema_metadata({"huggingface": f'{{"info": {{"features": {json.dumps(features)}}}}}'})
        path = tmp_path / "parquet" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, row_group_size=3)
        return path

    return write


@pytest.fixture(scope="session")
def content():
    """Every file below a folder, by name."""

    def read(folder):
        return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}

    return read


@pytest.fixture(scope="session")
def stored():
    """Sorted (name, label, bytes) of every sample of a shard set, read at the offsets of its table."""

    def read(folder):
        shards = load(folder)
        rows = []
        for row, sample in enumerate(shards.samples):
            with shards.shard_paths[sample["shard"]].open("rb") as file:
                file.seek(sample["offset"])
                rows.append((shards.sample_name(row), int(sample["label"]), file.read(sample["size"])))
        return sorted(rows)

    return read


@pytest.fixture(scope="session")
def read_samples():
    """Name, label and image of every sample of an open shard set, as the loader reads them."""

    def read(shards):
        reader = SampleReader(open_source(shards.folder))
        images, failures = reader.read(np.arange(len(shards.samples)))
        assert not failures
        reader.close()
        return [
            (shards.sample_name(row), int(label), image.tobytes())
            for row, (label, image) in enumerate(zip(shards.samples["label"], images, strict=True))
        ]

    return read


@pytest.fixture(scope="session")
def mutations():
    """The module of that name: kinds of damage to a shard set."""
    spec = importlib.util.spec_from_file_location("mutations", Path(__file__).with_name("mutations.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pipeline_def
def _read_by_dali(container, paths, indexes, decode):
    if container == "webdataset":
        image, label = fn.readers.webdataset(
            paths=paths,
            index_paths=indexes,
            ext=["jpg;png;webp;bmp;rgb", "label"],
            dtypes=[types.UINT8, types.INT32],
            missing_component_behavior="error",
            name="reader",
        )
    elif container == "tfrecord":
        features = {
            "image/encoded": FixedLenFeature((), string, ""),
            "image/class/label": FixedLenFeature([1], int64, -1),
        }
        record = fn.readers.tfrecord(path=paths, index_path=indexes, features=features, name="reader")
        image, label = record["image/encoded"], record["image/class/label"]
    else:
        image, label = fn.readers.mxnet(path=paths, index_path=indexes, name="reader")
    if decode:
        image = fn.decoders.image(image, device="cpu", output_type=types.RGB)
    return image, label


@pytest.fixture(scope="session")
def by_dali():
    """Label and image bytes, or pixels (height, width, 3), of every sample as DALI's own reader of the format says."""

    def read(shards, *, decode=False, batch_size=32):
        made = shards.manifest
        indexes = [made.index.file] if made.index else [shard.index for shard in made.shards]
        pipeline = _read_by_dali(
            made.format,
            [str(path) for path in shards.shard_paths],
            [str(shards.folder / index) for index in indexes],
            decode,
            batch_size=batch_size,
            num_threads=1,
            device_id=None,
        )
        pipeline.build()
        count = pipeline.epoch_size("reader")
        assert count == made.num_samples
        samples = []
        while len(samples) < count:
            images, labels = pipeline.run()
            for row in range(min(batch_size, count - len(samples))):
                image = np.asarray(images.at(row))
                samples.append((np.asarray(labels.at(row)).item(), image.copy() if decode else image.tobytes()))
        return samples

    return read


@pytest.fixture
def memory():
    """A folder of an object store that lives in memory, as a URL."""
    root = f"/{uuid.uuid4().hex}"
    yield f"memory://{root}"
    if MemoryFileSystem().exists(root):
        MemoryFileSystem().rm(root, recursive=True)
