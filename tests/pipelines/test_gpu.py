"""What only a GPU can get wrong: order of streams, memory given back too early, engines of the decoder.

The tests of the other files that take `device` run on the GPU, too: types and layouts, kept batches, parts and whole
images.
"""

import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from softfeed.pipelines import Loader, Mollify, Recipe, SoftCrop, nvjpeg
from softfeed.pipelines.shards.convert import ShardOptions, convert

pytestmark = pytest.mark.gpu

SOFT = Recipe(crop=SoftCrop())
BUSY_CYCLES = 20_000_000  # about 10 ms


def play(data, recipe=SOFT, **options):
    return Loader(data, recipe, 5, 224, **{"device": "cuda", "last_batch": "fill", "prefetch": 3, **options})


@pytest.fixture
def busy():
    """Keeps the GPU at work on another stream: a function to call now and then."""
    stream = torch.cuda.Stream()
    square = torch.randn(4096, 4096, device="cuda")

    def more():
        with torch.cuda.stream(stream):
            for _ in range(4):
                square @ square

    yield more
    torch.cuda.synchronize()


def sums(loader, *, epochs=6, before=lambda: None, wait=False):
    """A sum per image of some epochs, each batch let go as soon as the work on it is queued."""
    queued = []
    for _ in range(epochs):
        for batch in loader:
            before()
            queued.append(batch.images.double().sum(dim=(1, 2, 3)))
            del batch
            if wait:
                torch.cuda.synchronize()
    return torch.stack(queued).cpu()


@pytest.mark.parametrize("recipe", [SOFT, Recipe(crop=SoftCrop(), mollify=Mollify())], ids=["soft", "mollified"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_consumer_behind_on_a_stream_of_its_own_sees_its_own_batches(photo_folder, recipe, dtype):
    """The host runs ahead and drops batches whose work is still queued; the graph must not write over them."""
    with play(photo_folder, recipe, dtype=dtype) as loader:
        expected = sums(loader, wait=True)
        for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
            loader.set_epoch(0)
            with torch.cuda.stream(stream):
                assert torch.equal(sums(loader, before=lambda: torch.cuda._sleep(BUSY_CYCLES)), expected)


def test_the_jpeg_engines_write_in_order_while_the_gpu_is_busy(photo_folder, busy):
    """Engines of a GPU have been seen to write their output before the work that was queued ahead of it."""
    with play(photo_folder, hw_decoder_load=1.0) as engines, play(photo_folder, hw_decoder_load=0.0) as cores:
        idle = sums(engines, wait=True)
        engines.set_epoch(0)
        assert torch.equal(sums(engines, before=busy), idle)
        cores_only = sums(cores, wait=True)
    mean_difference = (idle - cores_only).abs() / (3 * 224 * 224)
    assert (mean_difference < 0.02).all(), "engines and cores decode different images"


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
    with play(photo_folder) as loader:
        next(iter(loader))
        assert nvjpeg.loaded_version() == nvjpeg.version() is not None


def test_memory_set_aside_changes_no_pixel(photo_folder, tmp_path):
    convert(photo_folder, tmp_path / "set", ShardOptions())
    with play(tmp_path / "set", index=True) as known:
        assert known._options.decoder.largest == (427, 640)
        batches = [
            (known.source(int(i)), image) for batch in known for i, image in zip(batch.index, batch.images, strict=True)
        ]
        plain = dict(known._options.decoder.settings, preallocate_height_hint=0, preallocate_width_hint=0)
    with pytest.MonkeyPatch.context() as patch, play(tmp_path / "set", index=True) as unknown:
        patch.setattr(type(unknown._options.decoder), "settings", plain)
        again = [image for batch in unknown for image in batch.images]
    for (name, image), other in zip(batches, again, strict=True):
        torch.testing.assert_close(image, other, msg=name)


def test_memory_stays_level(photo_folder):
    """Of the whole GPU, as DALI's memory is not torch's."""

    def used():
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        return total - free

    with play(photo_folder, dtype=torch.float16, channels_last=True) as loader:
        sums(loader, epochs=2)
        early = used()
        sums(loader, epochs=30)
        assert used() <= early * 1.02
