"""Small data sets that the tests of this folder make for themselves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


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
