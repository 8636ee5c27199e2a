"""Every mistake gets one line that says what, where and what to do."""

import gc
import shutil
import weakref

import numpy as np
import pytest
import torch
from softfeed import pipelines
from softfeed.pipelines import (
    CenterCrop,
    Flip,
    Loader,
    Mollify,
    Normalize,
    Occlude,
    PadCrop,
    RandAugment,
    RandomResizedCrop,
    ReadError,
    Recipe,
    SoftCrop,
    SoftShift,
    StepDecay,
    TrivialAugment,
    UnreadableImageError,
    presets,
)
from softfeed.pipelines.shards.convert import ShardOptions, convert

from .conftest import reader_threads


def load(data, recipe=None, batch_size=4, size=64, **options):
    return Loader(data, recipe or Recipe(crop=SoftCrop()), batch_size, size, **{"device": "cpu", **options})


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda path: None, FileNotFoundError, "must exist|no such|does not exist"),
        (lambda path: path.write_text("x"), NotADirectoryError, "must be a folder"),
        (lambda path: path.mkdir(), FileNotFoundError, "must hold images, got the empty folder"),
        (
            lambda path: (path / "a").mkdir(parents=True),
            FileNotFoundError,
            r"must hold images \(.*\), got no file below",
        ),
    ],
    ids=["missing", "file", "empty", "no image"],
)
def test_no_data(tmp_path, make, error, message):
    make(tmp_path / "data")
    with pytest.raises(error, match=message) as caught:
        load(tmp_path / "data")
    assert str(tmp_path / "data") in one_line(caught)


@pytest.fixture
def photos(photo_folder, tmp_path):
    return shutil.copytree(photo_folder, tmp_path / "photos")


@pytest.mark.parametrize("name", ["flower/0.jpg", "temple/4.jpg"])
@pytest.mark.parametrize("damage", ["text", "cut", "empty"])
def test_image_that_does_not_decode_is_named(photos, name, damage):
    path = photos / name
    content = path.read_bytes()
    path.write_bytes({"text": b"this is not an image", "cut": content[: len(content) // 2], "empty": b""}[damage])
    with load(photos, presets.evaluation(), 10) as loader:
        with pytest.raises((UnreadableImageError, ReadError)) as caught:
            list(loader)
        assert str(path) in one_line(caught)
        path.write_bytes(content)
        assert sum(len(batch.images) for batch in loader) == 10, "the loader is not usable after the repair"


@pytest.mark.parametrize("prefetch", [1, 2, 3])
def test_bad_image_in_flight_spoils_nothing_but_its_batch(photos, prefetch):
    """Leaving before the bad batch is reached is no error, and the good ones before it are played."""
    path = photos / "temple/4.jpg"  # the last sample, in the last batch
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with load(photos, presets.evaluation(), 2, prefetch=prefetch) as loader:
        for batch in loader:
            assert len(batch.images) == 2
            break
        for _ in range(2):
            assert played_until_unreadable(loader, path) == 8
        path.write_bytes(b"no header either")
    with load(photos, presets.evaluation(), 2, prefetch=prefetch) as loader:
        assert played_until_unreadable(loader, path) == 8


def test_loader_dropped_in_the_middle_ends_its_thread(photos):
    others = reader_threads()
    loader = load(photos, batch_size=1)
    iterator = iter(loader)
    next(iterator)
    (thread,) = reader_threads() - others
    reference = weakref.ref(loader)
    del loader, iterator
    gc.collect()
    assert reference() is None
    assert not thread.is_alive()


def played_until_unreadable(loader, path):
    """Number of images before the loader raises for `path`."""
    batches = iter(loader)
    played = 0
    while True:
        try:
            played += len(next(batches).images)
        except UnreadableImageError as error:
            return played if str(path) in str(error) else error


def test_image_that_vanishes_is_named(photos):
    with load(photos, batch_size=10) as loader:
        (photos / "flower/0.jpg").unlink()
        with pytest.raises(ReadError, match=r"cannot read .*flower/0\.jpg: No such file"):
            list(loader)


def test_shard_that_is_cut_or_vanishes_while_open_is_named(photos, tmp_path):
    convert(photos, tmp_path / "set", ShardOptions(shard_samples=100))
    shard = tmp_path / "set" / "shard-000000.tar"
    content = shard.read_bytes()
    with load(tmp_path / "set", batch_size=10) as loader:
        shard.write_bytes(content[:5000])
        with pytest.raises(
            ReadError, match=r"cannot read .*shard-000000\.tar at offset \d+ .*: the file was cut, replaced"
        ):
            list(loader)
    shard.write_bytes(content)
    with load(tmp_path / "set", batch_size=10) as loader:
        shard.unlink()
        with pytest.raises(ReadError, match=r"cannot read .*shard-000000\.tar at offset \d+ .*: No such file"):
            list(loader)


def test_shard_set_whose_manifest_and_files_disagree(photos, tmp_path):
    convert(photos, tmp_path / "set", ShardOptions(shard_samples=100))
    with (tmp_path / "set" / "shard-000000.tar").open("ab") as shard:
        shard.write(bytes(512))
    with pytest.raises(
        ValueError, match=r"shard-000000\.tar must be \d+ bytes as dataset\.json says, got \d+; convert"
    ):
        load(tmp_path / "set")


def test_settings_that_do_not_go_with_the_data(photos, noise_folder, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size must be at most a rank's share of the samples, 5 .* got 6"):
        load(photos, batch_size=6, rank=0, world_size=2)
    with load(photos, Recipe(crop=SoftShift())) as loader:
        with pytest.raises(ValueError, match="image_size must be the images' own size with SoftShift, got 64 for"):
            list(loader)
    convert(noise_folder, tmp_path / "raw", ShardOptions(raw=True))
    with pytest.raises(ValueError, match="image_size must be the images' own size, 32x32, with PadCrop, got 64"):
        load(tmp_path / "raw", Recipe(crop=PadCrop()))
    with pytest.raises(ValueError, match="resize must be at least image_size, 64, got 40"):
        load(photos, Recipe(crop=CenterCrop(resize=40)))
    one_class = tmp_path / "one"
    shutil.copytree(photos / "flower", one_class / "flower")
    with pytest.raises(ValueError, match=r"data must have at least two classes, got \['flower'\]"):
        load(one_class)


def test_devices_and_ranks(photos, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="got 'cuda' but torch sees no GPU; use 'cpu'"):
        load(photos, device="cuda")
    with pytest.raises(ValueError, match="device must be a CPU or an NVIDIA GPU, got 'mps'"):
        load(photos, device="mps")
    with pytest.raises(ValueError, match="device must be 'cpu', 'cuda' or 'cuda:N', got 'gpu'"):
        load(photos, device="gpu")
    with pytest.raises(ValueError, match="rank and world_size must be given together, got 0 and None"):
        load(photos, rank=0)
    with pytest.raises(ValueError, match=r"rank must be in \[0, 2\), got 2"):
        load(photos, rank=2, world_size=2)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"seed": -1}, "seed must be a whole number of at least 0, got -1"),
        ({"seed": 1.5}, "seed must be a whole number of at least 0, got 1.5"),
        ({"seed": "7"}, "seed must be a whole number of at least 0, got '7'"),
        ({"rank": 0.5, "world_size": 2}, "rank must be a whole number of at least 0, got 0.5"),
        ({"timeout": "30"}, "timeout must be a number, got '30'"),
        ({"size": 0}, "image_size must be a whole number of at least 1, got 0"),
        ({"size": 32.5}, "image_size must be a whole number of at least 1, got 32.5"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1, got 2.5"),
        ({"batch_size": 4.0}, "batch_size must be a whole number of at least 1, got 4.0"),
        ({"batch_size": True}, "batch_size must be a whole number of at least 1, got True"),
        ({"prefetch": 2.0}, "prefetch must be a whole number of at least 1, got 2.0"),
        ({"num_threads": 1.0}, "num_threads must be a whole number of at least 1, got 1.0"),
        ({"prefetch": 0}, "prefetch must be a whole number of at least 1, got 0"),
        ({"num_threads": 0}, "num_threads must be a whole number of at least 1, got 0"),
        ({"targets": "hard"}, "targets must be one of 'confidence', 'soft', 'labels', got 'hard'"),
        ({"last_batch": "rest"}, "last_batch must be one of"),
    ],
)
def test_loader_options(photos, option, message):
    with pytest.raises(ValueError, match=message):
        load(photos, **option)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SoftCrop(sigma=0), "sigma must be positive, got 0"),
        (lambda: SoftCrop(sigma=float("nan")), "sigma must be positive, got nan"),
        (lambda: SoftCrop(power=-1), "power must be positive, got -1"),
        (lambda: SoftCrop(plateau=1.5), "plateau must be"),
        (lambda: SoftCrop(min_side=0), "min_side must be positive, got 0"),
        (lambda: SoftCrop(spread=0), "spread must be positive, got 0"),
        (lambda: SoftShift(sigma=-0.1), "sigma must be positive, got -0.1"),
        (lambda: RandomResizedCrop(scale=(0.5, 0.2)), "scale must be an increasing pair"),
        (lambda: RandomResizedCrop(scale=(0.0, 1.0)), "scale must be an increasing pair"),
        (lambda: RandomResizedCrop(ratio=(0, 1)), "ratio must be an increasing pair"),
        (lambda: PadCrop(padding=-1), "padding must be a whole number of at least 0, got -1"),
        (lambda: CenterCrop(resize=0), "resize must be a whole number of at least 1, got 0"),
        (lambda: Flip(1.2), r"probability must be in \[0, 1\], got 1.2"),
        (lambda: Occlude(share=1.1), r"share must be in \[0, 1\], got 1.1"),
        (lambda: Occlude(share=[0.1, 0.4]), r"share must be a number, got \[0.1, 0.4\]"),
        (lambda: Occlude(share=(0.1, 0.2, 0.4)), r"share must be a tuple of two numbers, got \(0.1, 0.2, 0.4\)"),
        (lambda: RandomResizedCrop(scale=[0.2, 1.0]), r"scale must be a tuple of two numbers, got \[0.2, 1.0\]"),
        (lambda: SoftCrop(sigma="0.3"), "sigma must be a number, got '0.3'"),
        (lambda: Flip(True), "probability must be a number, got True"),
        (lambda: Normalize(std=(1, 0, 1)), "std must be positive, got 0"),
        (lambda: Normalize(std=(58.4, 57.1, 57.4)), "got 58.4; divide by 255"),
        (lambda: Normalize(mean=(0.5, 0.5)), "mean must have three values"),
        (lambda: Normalize(0.5, 0.5), "mean must have three values, one per channel, got 0.5"),
        (lambda: Normalize(std=np.float32(0.5)), "std must have three values, one per channel, got 0.5"),
        (lambda: Normalize(mean=torch.zeros(2)), "mean must have three values, one per channel, got 2"),
        (lambda: Normalize(std=np.ones((3, 1))), r"std must be a number, got \[1.0\]"),
        (lambda: Normalize(mean="rgb"), "mean must have three values, one per channel, got 'rgb'"),
        (lambda: RandAugment(magnitude=31), r"magnitude must be in \[0, 30\], got 31"),
        (lambda: RandAugment(num_ops=0), "num_ops must be a whole number of at least 1, got 0"),
        (
            lambda: TrivialAugment(num_magnitude_bins=0),
            "num_magnitude_bins must be a whole number of at least 1, got 0",
        ),
        (lambda: StepDecay(0.3, epoch=-1), "epoch must not be negative, got -1"),
        (lambda: presets.by_name("soft-imagnet"), "got 'soft-imagnet'; did you mean soft-imagenet"),
        (lambda: presets.by_name("soft-cifar-xx"), "recipe must be one of the presets"),
        (lambda: presets.with_sigma_decay(presets.by_name("hard-cifar"), epoch=3), "sigma decay must go with a soft"),
    ],
)
def test_recipe_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        (
            {"policy": Mollify()},
            r"policy must be one of RandAugment, .*; it belongs in mollify, as it needs a normalised",
        ),
        ({"crop": Occlude()}, "got Occlude.*; it belongs in occlude, as it needs a normalised image"),
        ({"flip": RandAugment()}, "flip must be one of Flip, got RandAugment.*; it belongs in policy$"),
        ({"mix": Occlude()}, "it belongs in occlude$"),
        ({"crop": "soft"}, "crop must be one of SoftCrop, .*, got 'soft'$"),
        ({"normalize": None}, "normalize must be given, got None"),
    ],
)
def test_a_step_in_the_wrong_slot(slots, message):
    with pytest.raises(TypeError, match=message):
        Recipe(**slots)


def test_the_repr_of_a_recipe_builds_it_again():
    names = {name: getattr(pipelines, name) for name in pipelines.__all__}
    for name in presets.names():
        recipe = presets.by_name(name)
        assert eval(repr(recipe), names) == recipe
    decayed = presets.with_sigma_decay(presets.by_name("soft-cifar"), epoch=180)
    assert eval(repr(decayed), names) == decayed
    assert np.isclose(decayed.crop.sigma.at(180), 0.0003)


@pytest.mark.parametrize(
    "kind", [list, np.array, torch.tensor, lambda values: torch.tensor(values, dtype=torch.float64), np.float64]
)
def test_normalisation_is_kept_as_plain_numbers(kind):
    mean, std = (0.4914, 0.4822, 0.4465), (0.25, 0.5, 1)
    made = Normalize(mean=kind(mean), std=kind(std))
    values = [*made.mean, *made.std]
    assert {type(value) for value in values} == {float}
    np.testing.assert_allclose(values, [*mean, *std], rtol=1e-7)  # of the tensors of float32
    assert eval(repr(made), {"Normalize": Normalize}) == made
    assert hash(made) == hash(eval(repr(made), {"Normalize": Normalize}))
    assert made.std == std


def test_a_recipe_is_no_name(noise_folder):
    with pytest.raises(TypeError, match=r"recipe must be a Recipe, got 'soft-imagenet'; presets\.by_name"):
        Loader(noise_folder, "soft-imagenet", 8, 32)
