"""The decoder of a GPU on batches as training has them; all need a GPU."""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
from softfeed.pipelines import Loader, Recipe, SoftCrop, nvjpeg

pytestmark = pytest.mark.gpu

SOFT = Recipe(crop=SoftCrop())
MANY = 96  # of a batch: enough for the engines of any GPU to take their share of it as one batch

LOGGED = """
import sys
from softfeed.pipelines import Loader, Recipe, SoftCrop
fancy = sys.argv[2] == "fancy"
settings = {"device": "cuda", "hw_decoder_load": 1.0, "roi_decode": False, "num_threads": 4, "prefetch": 1}
with Loader(sys.argv[1], Recipe(crop=SoftCrop()), 96, 224, fancy_upsampling=fancy, **settings) as loader:
    for batch in loader:
        pass
"""


@pytest.fixture(scope="module")
def mixed_folder(tmp_path_factory):
    """96 photographs as ImageNet has them: 4:4:4, 4:2:0 and grey, which the names end with, of many sizes."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    root, rng = tmp_path_factory.mktemp("mixed"), np.random.default_rng(0)
    photos = load_sample_images().images
    for number in range(MANY):
        height, width = rng.integers(60, 427, 2)
        top, left = rng.integers(0, 427 - height + 1), rng.integers(0, 640 - width + 1)
        photo = Image.fromarray(photos[number % 2][top : top + height, left : left + width])
        kind = ("444", "420", "grey", "444")[number // 2 % 4]
        path = root / f"class{number % 2}" / f"{number:02d}-{kind}.jpg"
        path.parent.mkdir(exist_ok=True)
        if kind == "grey":
            photo.convert("L").save(path, quality=90)
        else:
            photo.save(path, quality=90, subsampling=0 if kind == "444" else 2)
    return root


def played(data, *, epochs=3, **options):
    """Images by name and epoch, float32 (3, 224, 224) on the CPU, of batches that hold the whole data set."""
    images = {}
    settings = {"device": "cuda", "last_batch": "fill", "index": True, "prefetch": 3, **options}
    with Loader(data, SOFT, MANY, 224, **settings) as loader:
        for epoch in range(epochs):
            for batch in loader:
                names = [(loader.source(index), epoch) for index in batch.index.tolist()]
                images |= dict(zip(names, batch.images.cpu(), strict=True))
    assert len(images) == epochs * MANY
    return images


def differences(some, others):
    """Mean difference of each image, by what its name says of its chroma."""
    assert some.keys() == others.keys()
    found = {"444": [], "420": [], "grey": []}
    for (name, epoch), image in some.items():
        difference = (image - others[name, epoch]).abs().mean().item()
        found[name.removesuffix(".jpg").rsplit("-", 1)[1]].append(difference)
    assert all(found.values())
    return {kind: np.array(values) for kind, values in found.items()}


@pytest.mark.parametrize("fancy_upsampling", [True, False], ids=["interpolated", "repeated"])
@pytest.mark.parametrize("parts", [True, False], ids=["parts", "whole"])
def test_engines_and_cores_decode_a_large_mixed_batch_alike(mixed_folder, parts, fancy_upsampling):
    """As training does: batches that the engines take in one go, mixtures, and more than one batch of a graph."""
    # None asks for a trial; what does not work there is decoded whole, and is compared as such
    settings = {"roi_decode": None if parts else False, "fancy_upsampling": fancy_upsampling}
    cores = played(mixed_folder, hw_decoder_load=0.0, **settings)
    for load in (0.65, 1.0):
        for kind, found in differences(played(mixed_folder, hw_decoder_load=load, **settings), cores).items():
            assert (found < 0.02).all(), f"{kind}: more than one of 255 on average, {found.max():.3f} at {load}"


def test_a_large_mixed_batch_is_that_of_the_cpu_inside(mixed_folder):
    """Its resize differs at borders, so that this says little of single pixels."""
    on_cpu = played(mixed_folder, device="cpu", epochs=1)
    for kind, found in differences(played(mixed_folder, epochs=1), on_cpu).items():
        assert np.median(found) < 0.02, f"{kind}: {np.median(found):.3f}"


def test_repeated_chroma_changes_images_with_less_of_it_and_no_others(mixed_folder):
    settings = {"hw_decoder_load": 0.0, "roi_decode": False, "epochs": 1}
    fancy, simple = (played(mixed_folder, fancy_upsampling=fancy, **settings) for fancy in (True, False))
    found = differences(fancy, simple)
    assert found["444"].max() < 0.002
    assert found["grey"].max() < 0.002
    # some crops show next to nothing of their images
    assert np.median(found["420"]) > 0.004, "the setting does not reach the decoder"


def test_interpolated_mixtures_go_another_way_through_the_engines(mixed_folder):
    """That the tests here reach what ImageNet reaches: the decoder says so itself."""

    def said(upsampling):
        told = subprocess.run(
            [sys.executable, "-c", LOGGED, str(mixed_folder), upsampling],
            env={**os.environ, "DALI_NVIMGCODEC_LOG_LEVEL": "3"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
            timeout=120,
        )
        return told.stdout

    fancy = said("fancy")
    engines = re.search(r"num_hw_engines=(\d+)", fancy)
    if engines is None or int(engines[1]) < 2:
        pytest.skip("this GPU has not several JPEG engines")
    assert "Using HW batch-single decode path" in fancy
    assert "Using HW batch-single decode path" not in said("simple")


def test_the_nvjpeg_that_was_asked_is_the_one_that_decodes(photo_folder):
    with Loader(photo_folder, SOFT, 5, 224, device="cuda") as loader:
        next(iter(loader))
        assert nvjpeg.loaded_version() == nvjpeg.version() is not None
