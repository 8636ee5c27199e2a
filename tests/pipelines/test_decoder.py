"""Decoding parts of images or whole ones gives the same pixels; what the GPU's decoder is told."""

import warnings

import pytest
import torch
from softfeed.pipelines import Loader, PadCrop, RandomResizedCrop, Recipe, SoftCrop, presets
from softfeed.pipelines.decoder import Decoder, decoder_for, preallocated
from softfeed.pipelines.process import default_prefetch
from softfeed.pipelines.roi_probe import roi_decode_works
from softfeed.pipelines.shards.convert import ShardOptions, convert
from softfeed.pipelines.sources import open_source


@pytest.fixture(scope="session")
def photo_set(photo_folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("photo-set")
    convert(photo_folder, root / "set", ShardOptions())
    return root / "set"


def tried_on(gpu):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return roi_decode_works(gpu)


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(crop=SoftCrop()),
        Recipe(crop=RandomResizedCrop()),
        presets.evaluation(),
    ],
    ids=["soft", "hard", "evaluation"],
)
def test_parts_and_whole_images_give_the_same_pixels(photo_folder, device, recipe):
    """Equal on the CPU; on a GPU the two ways may use different engines, which round differently."""
    if device == "cuda" and not tried_on(torch.device("cuda", 0)):
        pytest.skip("decoding parts of images ends the process on this GPU")
    played = []
    for roi_decode in (True, False):
        with Loader(photo_folder, recipe, 10, 96, device=device, roi_decode=roi_decode) as loader:
            played.append([next(iter(loader)) for _ in range(2)])
    for parts, whole in zip(*played, strict=True):
        assert torch.equal(parts.labels, whole.labels)
        if device == "cpu":
            assert torch.equal(parts.images, whole.images)
        difference = (parts.images - whole.images).abs().mean(dim=(1, 2, 3))
        assert (difference < 0.02).all(), "more than one of 255 on average"


def test_the_largest_image_of_a_shard_set_is_known(photo_set, photo_folder, monkeypatch):
    class Properties:
        total_memory = 80 << 30

    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: Properties)
    device = torch.device("cuda", 1)
    settings = {"hw_decoder_load": 0.3, "roi_decode": True}
    decoder = decoder_for(open_source(photo_set), device, 256, **settings)
    assert decoder == Decoder(1, 0.3, True, (427, 640))
    assert decoder.settings["preallocate_height_hint"] == 427
    assert decoder.settings["preallocate_width_hint"] == 640
    assert decoder.settings["hw_decoder_load"] == 0.3
    assert decoder_for(open_source(photo_folder), device, 256, **settings).largest == (0, 0)
    assert decoder_for(open_source(photo_folder), device, 256, fancy_upsampling=False, **settings) == Decoder(
        1, 0.3, fancy_upsampling=False
    )


def test_one_huge_image_does_not_take_the_gpu():
    assert preallocated((1000, 1000), 256, 80 << 30) == (1000, 1000)
    assert preallocated((9331, 6530), 256, 80 << 30) == (0, 0)
    assert preallocated((0, 0), 256, 80 << 30) == (0, 0)


def test_the_settings_reach_the_decoder(photo_set, monkeypatch):
    """What DALI's operators of both kinds are called with on a GPU; here they are only recorded."""
    from nvidia.dali import fn
    from softfeed.pipelines.decoder import visible_part

    calls = []
    for name in ("image", "image_slice"):
        monkeypatch.setattr(fn.decoders, name, lambda source, name=name, **settings: calls.append((name, settings)))
    monkeypatch.setattr(fn, "slice", lambda images, **rectangle: calls.append(("slice", rectangle)))
    inputs = {"start": "start", "extent": "extent"}
    for roi in (True, False):
        visible_part("bytes", inputs, Decoder(0, 0.4, roi, (10, 20), fancy_upsampling=roi))
    assert [name for name, _ in calls] == ["image_slice", "image", "slice"]
    assert [settings["jpeg_fancy_upsampling"] for _, settings in calls[:2]] == [True, False]
    assert Decoder(0).settings["jpeg_fancy_upsampling"], "the pixels of a CPU by default"
    from nvidia.dali import backend

    for operator, (_, settings) in zip(("ImageSlice", "Image"), calls[:2], strict=True):
        known = backend.GetSchema(f"decoders__{operator}")
        assert [name for name in settings if name != "device" and not known.HasArgument(name)] == []
        assert settings["device"] == "mixed"
        assert settings["hw_decoder_load"] == 0.4
        assert (settings["preallocate_height_hint"], settings["preallocate_width_hint"]) == (10, 20)
    assert calls[0][1]["start"] == calls[2][1]["start"] == "start"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"hw_decoder_load": 1.5}, r"hw_decoder_load must be in \[0, 1\], got 1.5"),
        ({"hw_decoder_load": -0.1}, r"hw_decoder_load must be in \[0, 1\], got -0.1"),
        ({"roi_decode": "no"}, "roi_decode must be one of None, False, True, got 'no'"),
        ({"fancy_upsampling": None}, "fancy_upsampling must be one of False, True, got None"),
        ({"fancy_upsampling": False}, "fancy_upsampling must be True on a CPU, whose decoder always interpolates"),
    ],
)
def test_other_settings_are_refused(photo_folder, setting, message):
    with pytest.raises(ValueError, match=message):
        Loader(photo_folder, Recipe(), 8, device="cpu", **setting)


def test_raw_images_are_not_decoded(noise_folder, tmp_path):
    convert(noise_folder, tmp_path / "set", ShardOptions(raw=True))
    source = open_source(tmp_path / "set")
    decoder = decoder_for(source, torch.device("cuda", 0), 8, hw_decoder_load=0.65, roi_decode=None)
    assert decoder == Decoder()
    settings = {"roi_decode": False, "fancy_upsampling": False}
    with Loader(tmp_path / "set", Recipe(crop=PadCrop()), 8, 32, device="cpu", **settings) as loader:
        assert len(list(loader)) == 4


def test_on_a_cpu_one_batch_fewer_is_kept_ahead(noise_folder):
    assert (default_prefetch(torch.device("cpu")), default_prefetch(torch.device("cuda", 1))) == (2, 3)
    with Loader(noise_folder, Recipe(), 8, 32, device="cpu") as loader:
        assert loader.speed_settings["prefetch"] == 2
    with Loader(noise_folder, Recipe(), 8, 32, device="cpu", prefetch=4) as loader:
        assert loader.speed_settings["prefetch"] == 4
