"""Small data sets that the tests of this folder make for themselves."""

import faulthandler
import os
import select
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from softfeed.pipelines import (
    AdditiveNoise,
    CutMix,
    Flip,
    Linear,
    Loader,
    Mollify,
    Normalize,
    Occlude,
    RandAugment,
    Recipe,
    SoftCrop,
    SoftShift,
)
from softfeed.pipelines.shards.containers.formats import CONTAINERS
from softfeed.pipelines.shards.convert import ShardOptions, convert

# Every slot of a recipe in use, with a schedule that moves within an epoch; tests that must hold for all operations
# take their recipe from here.
EVERY_SLOT = {
    "flip": Flip(),
    "policy": RandAugment(),
    "normalize": Normalize(),
    "occlude": Occlude(share=(0.0, 0.5)),
    "mix": CutMix(),
    "noise": AdditiveNoise(),
    "mollify": Mollify(),
    "views": 2,
}

# The ways in which one data set can lie on a disk: an image folder, and what each set of options converts it to.
KINDS = {
    "folder": None,
    "encoded": ShardOptions(shard_samples=10),
    "raw": ShardOptions(shard_samples=10, raw=True),
    **{name: ShardOptions(shard_samples=10, format=name) for name in CONTAINERS if name != "webdataset"},
}
# A machine with a GPU may have little beside torch and DALI: tests of the other kinds run there all the same.
WRITABLE = [kind for kind in KINDS if kind != "tfrecord" or find_spec("google_crc32c")]


def in_fork(function, timeout=60):
    """Call a function in a forked child, which then leaves at once; what it returned, as text.

    A child that hangs says where, and ends. It holds the pipes of a worker of pytest-xdist, which waits until all who
    hold them have ended.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            faulthandler.enable(writing)
            os.write(writing, str(function()).encode())
            status = 0
        except BaseException:  # noqa: BLE001 - told to the parent
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        ended, _, _ = select.select([pipe], [], [], timeout)
        if not ended:
            os.kill(child, signal.SIGABRT)
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, said
    return said


def reader_threads():
    """Threads that read for loaders, those of other tests among them: a pass that somebody still holds goes on."""
    return {thread for thread in threading.enumerate() if thread.name == "softfeed-reader"}


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


def write_folder(root: Path, images: dict[str, np.ndarray]) -> Path:
    """Write uint8 HWC images to `root/name`, in the format of the name's extension."""
    for name, pixels in images.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


@pytest.fixture
def white_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of white PNG images of the given (height, width), in two classes."""

    def make(*shapes: tuple[int, int]) -> Path:
        images = {f"c{i % 2}/{i}.png": np.full((*shape, 3), 255, np.uint8) for i, shape in enumerate(shapes)}
        return write_folder(tmp_path / "white", images)

    return make


@pytest.fixture(scope="session")
def noise_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """37 images of 32 x 32 random pixels in three classes, as PNG."""
    rng = np.random.default_rng(0)
    images = {f"class{i % 3}/{i:02d}.png": rng.integers(0, 256, (32, 32, 3), np.uint8) for i in range(37)}
    return write_folder(tmp_path_factory.mktemp("noise"), images)


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two photographs that scikit-learn carries, as JPEG, whole and in parts of several shapes."""
    from sklearn.datasets import load_sample_images

    images = {}
    for name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        for i, (height, width) in enumerate([(427, 640), (427, 300), (233, 640), (224, 224), (300, 400)]):
            images[f"{name}/{i}.jpg"] = photo[:height, :width]
    return write_folder(tmp_path_factory.mktemp("photos"), images)


@pytest.fixture(scope="session")
def noise_sets(noise_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The images of `noise_folder` in every one of `KINDS` that can be written here."""
    root = tmp_path_factory.mktemp("sets")
    for kind in WRITABLE:
        if KINDS[kind] is not None:
            convert(noise_folder, root / kind, KINDS[kind])
    return {kind: noise_folder if KINDS[kind] is None else root / kind for kind in WRITABLE}


@pytest.fixture(params=list(KINDS))
def noise_set(request: pytest.FixtureRequest, noise_sets: dict[str, Path]) -> Path:
    """One of `noise_sets` after the other."""
    if request.param not in noise_sets:
        pytest.skip("google-crc32c is not installed, which TFRecord needs")
    return noise_sets[request.param]


@pytest.fixture(params=["resized", "shifted"])
def every_operation(request: pytest.FixtureRequest) -> Recipe:
    """A recipe with every slot in use, for images of 32 x 32 pixels and soft targets."""
    assert {"crop", *EVERY_SLOT} == {field.name for field in fields(Recipe)}, "a slot that EVERY_SLOT does not have"
    sigma = Linear(0.3, 0.1, 0, 3)
    return Recipe(crop=SoftCrop(sigma=sigma) if request.param == "resized" else SoftShift(sigma=sigma), **EVERY_SLOT)


@pytest.fixture
def make_loader() -> Iterator[Callable[..., Loader]]:
    """Makes loaders of the CPU, of 32 pixels, which tell indices; closes them after the test."""
    made = []

    def make(data: Path, recipe: Recipe, batch_size: int = 8, **options: object) -> Loader:
        made.append(
            Loader(data, recipe, batch_size, 32, **{"device": "cpu", "index": True, "num_threads": 2, **options})
        )
        return made[-1]

    yield make
    for loader in made:
        loader.close()
