"""Types and layouts of images: the same values as float32, to within the type's rounding, without a copy, for keeps."""

from dataclasses import replace
from itertools import chain

import pytest
import torch
from softfeed.pipelines import (
    AdditiveNoise,
    GridMask,
    Loader,
    Mixup,
    Mollify,
    Mosaic,
    Occlude,
    Recipe,
    SoftCrop,
    SoftShift,
    presets,
)
from softfeed.pipelines.graph import computed_after_graph
from softfeed.pipelines.shards.convert import ShardOptions, convert

FORMS = [(torch.float32, True), (torch.float16, False), (torch.float16, True), (torch.bfloat16, True)]
CROPS = {"fused": Recipe(crop=SoftCrop()), "shift": Recipe(crop=SoftShift())}
CROPS["canvas"] = replace(CROPS["fused"], policy=presets.by_name("soft-imagenet-ta").policy)
STEPS = {
    "one patch": {"occlude": Occlude()},
    "many patches": {"occlude": GridMask(spacing=(8, 16))},
    "noise": {"noise": AdditiveNoise()},
    "pure noise": {"mollify": Mollify(pure_noise=1.0)},
    "mixup": {"mix": Mixup(alpha=1.0)},
    "mosaic": {"mix": Mosaic()},
    "two views": {"views": 2},
    "all": {"occlude": Occlude(), "noise": AdditiveNoise(), "mollify": Mollify(), "views": 2},
}
OTHERS = [("shift", "one patch"), ("shift", "all"), ("canvas", "one patch")]
# graphs with a policy take a second to build, so few stand for the others
PRESETS = [name for name in presets.names() if name.count("-") == 1 or name.endswith(("imagenet-moll", "cifar-moll"))]
PRESETS += ["soft-imagenet-ta-moll", "hard-cifar-ra"]


@pytest.fixture(scope="session")
def raw_noise(noise_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    convert(noise_folder, root / "set", ShardOptions(shard_samples=10, raw=True))
    return root / "set"


@pytest.fixture
def play(noise_folder, raw_noise, device):
    """First batch of a recipe on the smallest data that it takes."""

    def play(recipe, **options):
        data = noise_folder if recipe.crop.resizes else raw_noise
        targets = "soft" if recipe.needs_targets else "confidence"
        with Loader(data, recipe, 8, 32, device=device, targets=targets, **options) as loader:
            return next(iter(loader))

    return play


def assert_rounded(images, exact, dtype, recipe):
    """The nearest values to those of float32, where no sum in another order comes between."""
    assert images.dtype == dtype
    assert images.shape == exact.shape
    if images.device.type == "cpu" and not computed_after_graph(recipe):
        assert torch.equal(images, exact.to(dtype))
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(images.float(), exact, rtol=step / 2, atol=2e-5 if dtype == torch.float32 else step / 8)


def is_channels_last(images):
    flat = images.flatten(0, -4)
    return flat.is_contiguous(memory_format=torch.channels_last) and not flat.is_contiguous()


def assert_same_in_every_form(play, recipe, forms):
    exact = play(recipe)
    assert exact.images.dtype == torch.float32
    assert exact.images.is_contiguous()
    for dtype, channels_last in forms:
        batch = play(recipe, dtype=dtype, channels_last=channels_last)
        assert_rounded(batch.images, exact.images, dtype, recipe)
        assert is_channels_last(batch.images) == channels_last
        torch.testing.assert_close(batch[1], exact[1], rtol=0, atol=0)  # labels or targets


@pytest.mark.parametrize(("way", "step"), [("fused", step) for step in STEPS] + OTHERS)
def test_every_step_in_every_form(play, way, step):
    forms = FORMS[2:3] if way == "canvas" else FORMS
    assert_same_in_every_form(play, replace(CROPS[way], **STEPS[step]), forms)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_in_half_precision(play, name):
    recipe = presets.by_name(name)
    images = play(recipe, dtype=torch.float16, channels_last=True).images
    assert_rounded(images, play(recipe).images, torch.float16, recipe)
    assert is_channels_last(images)


@pytest.mark.parametrize("way", ["fused", "shift"])
def test_the_graph_writes_the_form_itself(play, monkeypatch, way):
    """What torch hands over lies where the graph wrote it."""
    from softfeed.pipelines.runner import GraphRunner

    written = []  # and maybe that of the next batch
    collect = GraphRunner.collect

    def told(runner):
        images = collect(runner)
        if isinstance(images, torch.Tensor):  # else they are decoded images, not finished
            written.append(images)
        return images

    monkeypatch.setattr(GraphRunner, "collect", told)
    recipe = replace(CROPS[way], occlude=Occlude())
    for dtype in (torch.float32, torch.float16):
        for channels_last in (False, True):
            batch = play(recipe, dtype=dtype, channels_last=channels_last)
            assert batch.images.data_ptr() in [images.data_ptr() for images in written]
    play(recipe, dtype=torch.bfloat16)
    assert written[-1].dtype == torch.float32


def test_kept_batches_never_change(raw_noise, noise_folder, device):
    """All batches of two epochs, kept while others are made, hold at the end what they held when they came."""
    for data, recipe in ((raw_noise, CROPS["shift"]), (noise_folder, replace(CROPS["fused"], mollify=Mollify()))):
        for dtype, channels_last in FORMS:
            kept, copies = [], []
            options = {"dtype": dtype, "channels_last": channels_last, "device": device, "index": True}
            loader = Loader(data, recipe, 4, 32, last_batch="fill", **options)
            for batch in chain(loader, loader):
                kept.append(batch)
                copies.append([field.clone() for field in batch])
            loader.close()
            del loader
            assert len(kept) == 20
            for batch, copy in zip(kept, copies, strict=True):
                for now, then in zip(batch, copy, strict=True):
                    torch.testing.assert_close(now, then, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"dtype": torch.float64}, r"dtype must be one of torch.float32, torch.float16, torch.bfloat16, got torch.fl"),
        ({"dtype": "float16"}, r"dtype must be one of .*, got 'float16'"),
        ({"channels_last": "yes"}, r"channels_last must be one of False, True, got 'yes'"),
    ],
)
def test_other_forms_are_refused(noise_folder, setting, message):
    with pytest.raises(ValueError, match=message):
        Loader(noise_folder, Recipe(), 8, device="cpu", **setting)
