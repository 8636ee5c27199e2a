"""Every peer does the same work: its windows and flips are read off pictures whose pixels tell their place."""

import gc
import importlib
import random
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from softfeed.benchmarks import measurement, page_cache, peers_suite
from softfeed.benchmarks.peers.job import AREA, ASPECT, MEAN, STD, Job
from softfeed.benchmarks.peers.registry import PEERS, RAW, packages, regime
from softfeed.benchmarks.result import from_json
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.train import cli

from .conftest import SIDE, rate

SIZE, BATCH = 32, 6
HARD = [name for name, (_, function) in PEERS.items() if function == "hard"]
_WITH_WORKERS = ("timm_loader", "webdataset_loader")
_IMPORTED = {"FFCV": "ffcv", "SPDL": "spdl", "timm": "timm", "webdataset": "webdataset"}


def batches(name, folder, tmp_path):
    if name in _IMPORTED:
        pytest.importorskip(
            _IMPORTED[name], reason=f"{name} is not installed, see the extra `peers`", exc_type=ImportError
        )
    shards = convert(folder, tmp_path / "shards", ShardOptions(shard_samples=12), workers=1).folder
    # worker processes would change nothing but the time
    workers = (
        0 if PEERS[name][0] in ("torchvision_pillow", "torchvision_tensor", "timm_loader", "webdataset_loader") else 1
    )
    job = Job(folder, shards, tmp_path, BATCH, SIZE, workers, "cpu")
    module, function = PEERS[name]
    try:
        return getattr(importlib.import_module(f"softfeed.benchmarks.peers.{module}"), function)(job)
    except RuntimeError as error:
        pytest.skip(f"{name} does not run here: {str(error)[:80]}")


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # timm and webdataset leave that to Python
@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities of TorchVision:DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "parts"),
    [pytest.param(name, True, id=name, marks=[pytest.mark.slow] * (name == "FFCV")) for name in HARD]
    + [pytest.param("DALI example graph", False, id="DALI example graph, whole images")],
)
def test_windows_flips_and_values(name, parts, ramp_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("softfeed.benchmarks.peers.dali_example.roi_decode_works", lambda device: parts)
    torch.manual_seed(0)
    random.seed(0)
    epoch = batches(name, ramp_folder, tmp_path)
    images, labels = [], []
    for _ in range(2):
        for batch, label in epoch():
            assert batch.shape == (BATCH, 3, SIZE, SIZE)
            assert batch.dtype == torch.float32
            assert label.shape == (BATCH,)
            images.append(batch.clone())
            labels += label.tolist()
    del epoch
    gc.collect()  # what the peer leaves open
    pixels = 255 * (torch.cat(images) * torch.tensor(STD).view(1, 3, 1, 1) + torch.tensor(MEAN).view(1, 3, 1, 1))
    assert len(pixels) == 2 * 24
    blue = torch.tensor([(60.0, 200.0)[label] for label in labels]).view(-1, 1, 1)
    # FFmpeg's resize makes something up in the last column
    assert (pixels[:, 2, :-1, :-1] - blue).abs().max() < 4  # channels in order, normalised, labels with their images
    across, down = pixels[:, 0].mean(1), pixels[:, 1].mean(2)
    # away from the border, where the resize has less to interpolate, a step is the window's side over SIZE
    width, height = ((line[:, -4] - line[:, 3]) * SIZE / (SIZE - 7) for line in (across, down))
    assert (height > 0).all()
    assert 0.2 < (width < 0).float().mean() < 0.8, "flips are drawn"
    area, aspect = width.abs() * height / SIDE**2, width.abs() / height
    assert area.min() > AREA[0] - 0.03
    assert area.max() <= AREA[1] + 0.03
    assert area.std() > 0.15, "areas are drawn"
    assert aspect.min() > ASPECT[0] * 0.93
    assert aspect.max() < ASPECT[1] * 1.07
    # within the image the red ramp is a straight line, and the same in every row
    inner = pixels[:, 0, 3:-3, 3:-3]
    assert (inner - inner.mean(1, keepdim=True)).abs().max() < 4
    assert (inner.diff(dim=2).mean(1) - (width / SIZE)[:, None]).abs().max() < 1.5


def test_the_pillow_soft_crop_has_the_loaders_distribution(ramp_folder, tmp_path):
    """Both soft crops: mean confidence and the mean share of the output that shows the image."""
    from softfeed.benchmarks.peers.pillow_soft import SoftImageFolder
    from softfeed.pipelines import Loader, presets

    soft = presets.by_name("soft-imagenet")
    random.seed(0)
    dataset = SoftImageFolder(ramp_folder, soft, 64)
    theirs = [dataset[i % 24] for i in range(960)]
    with Loader(ramp_folder, soft, 24, 64, num_threads=1, device="cpu") as loader:
        ours = [batch._replace(images=batch.images.clone()) for _ in range(40) for batch in loader]
    both = [image for image, _, _ in theirs], [image for batch in ours for image in batch.images]
    shown = [np.mean([float((image != 0).any(0).float().mean()) for image in images]) for images in both]
    confidence = [np.mean([row[2] for row in theirs]), np.mean([batch.confidence.mean() for batch in ours])]
    assert shown[0] == pytest.approx(shown[1], abs=0.03)
    assert confidence[0] == pytest.approx(confidence[1], abs=0.03)


def test_whole_images_are_decoded_for_the_bound(ramp_folder, tmp_path):
    pytest.importorskip("simplejpeg", reason="simplejpeg is not installed, see the extra `peers`")
    from softfeed.benchmarks.peers import jpeg_loop

    (first, labels), *rest = jpeg_loop.decode_only(Job(ramp_folder, tmp_path, tmp_path, BATCH, SIZE, 2, "cpu"))()
    assert len(rest) == 3
    assert len(labels) == BATCH
    with Image.open(sorted(ramp_folder.rglob("*.jpg"))[0]) as image:
        expected = np.asarray(image).astype(int)
    zero = first[labels.tolist().index(0)]
    assert np.abs(zero - expected).max() <= 1


def test_every_peer_states_its_regime():
    for name in PEERS | RAW:
        assert len(regime(name)) > 60
        assert all(isinstance(version, str) for version in packages(name).values())


def facts(path):
    with Image.open(path) as image:
        return image.mode, image.size


def test_the_same_files_for_all(tmp_path):
    source = tmp_path / "source"
    (source / "cat").mkdir(parents=True)
    (source / "dog").mkdir()
    Image.new("RGB", (40, 20)).save(source / "cat" / "a.jpg")
    Image.new("L", (40, 20)).save(source / "dog" / "b.jpg")
    Image.new("RGBA", (40, 20)).save(source / "dog" / "c.png")
    folder = peers_suite.same_files(source, tmp_path / "images", max_side=None)
    files = sorted(folder.rglob("*.jpg"))
    assert len(files) >= peers_suite._LEAST
    linked = [path for path in files if path.parent.name == "cat"]
    assert {path.resolve() for path in linked} == {(source / "cat" / "a.jpg").resolve()}
    assert {facts(path)[0] for path in files[:3] + files[-3:]} == {"RGB"}


def test_re_encoding_bounds_the_longest_side(tmp_path):
    (tmp_path / "source" / "cat").mkdir(parents=True)
    Image.new("RGB", (400, 200)).save(tmp_path / "source" / "cat" / "a.jpg")
    Image.new("RGB", (40, 20)).save(tmp_path / "source" / "cat" / "b.jpg")
    folder = peers_suite.same_files(tmp_path / "source", tmp_path / "images", max_side=100)
    assert {facts(path)[1] for path in folder.rglob("0-*.jpg")} == {(100, 50), (40, 20)}


def test_a_peer_that_wins_is_named():
    rates = {r.name: r for r in (rate("softfeed, soft crop", 100, 110), rate("FFCV", 150, 165), rate("timm", 50, 55))}
    assert peers_suite.verdict(rates) == ["FFCV is quicker than softfeed, soft crop: 1.50 times."]
    assert [ratio.name for ratio in peers_suite.ratios(rates)] == [
        "softfeed, soft crop / FFCV",
        "softfeed, soft crop / timm",
    ]
    del rates["FFCV"]
    assert peers_suite.verdict(rates) == ["No other loader here is quicker than softfeed, soft crop."]


def test_cold_means_every_file_that_any_peer_plays(ramp_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(measurement, "_WARM_BATCHES", 1)
    monkeypatch.setattr(peers_suite, "_LEAST", 48)
    few = {name: PEERS[name] for name in ("softfeed, soft crop", "softfeed, soft crop, shard set", "FFCV")}
    monkeypatch.setattr(peers_suite, "PEERS", few)
    dropped, make = [], peers_suite.contender
    monkeypatch.setattr(page_cache, "drop", lambda files: dropped.append(list(files)))
    monkeypatch.setattr(peers_suite, "OwnProcess", lambda made: nullcontext(make(*made.args)))
    output = tmp_path / "peers.json"
    words = [ramp_folder, "--peers", "--cold", "--seconds", 0.01, "--repeats", 1, "--image-size", 16, "--batch-size", 4]
    assert cli.main(["bench", *map(str, words), "--device", "cpu", "--output", str(output)]) == 0
    assert len(dropped) == 2
    files = [Path(file) for file in dropped[0]]
    assert {path for path in files if path.suffix == ".jpg"} == {path.resolve() for path in ramp_folder.rglob("*.jpg")}
    assert {path.name for path in files} >= {"shard-000000.tar", "samples.npy"}
    assert len(set(files)) == len(files)
    found = from_json(output)
    assert "mapped pages cannot be dropped" in found.facts["skipped"]["FFCV"]
    assert not {"recipe", "dtype", "channels_last", "model"} & set(found.settings)


@pytest.mark.parametrize("parts", [True, False])
def test_dalis_graph_for_a_gpu_decodes_as_the_loader_does(ramp_folder, monkeypatch, parts):
    """Chroma is interpolated, and parts of images are decoded where that does not end the process."""
    from nvidia.dali import fn
    from softfeed.benchmarks.peers import dali_example

    asked = {}

    def recorded(name, make, encoded, **settings):
        asked[name] = (settings["device"], settings.get("jpeg_fancy_upsampling"))
        return make(encoded, **settings)

    for name in ("image", "image_random_crop"):
        monkeypatch.setattr(fn.decoders, name, partial(recorded, name, getattr(fn.decoders, name)))
    monkeypatch.setattr(dali_example, "roi_decode_works", lambda device: device.type == "cuda" and parts)
    monkeypatch.setattr("nvidia.dali.pipeline.Pipeline.build", lambda pipeline: None)
    monkeypatch.setattr("nvidia.dali.pipeline.Pipeline.reader_meta", lambda pipeline, name: {"epoch_size": 24})
    dali_example.hard(Job(ramp_folder, ramp_folder, ramp_folder, BATCH, SIZE, 1, "cuda"))
    assert asked == {"image_random_crop" if parts else "image": ("mixed", True)}


def test_loaders_whose_workers_have_no_room_for_their_batches_are_skipped(tmp_path, monkeypatch):
    """16 workers two batches ahead, 154 MB each: a worker without room is killed, or its loader waits for ever."""
    job = Job(tmp_path, tmp_path, tmp_path, 256, 224, 16, "cuda")
    free = [0.0]
    monkeypatch.setattr(peers_suite.shutil, "disk_usage", lambda path: SimpleNamespace(free=int(free[0] * 1e9)))
    names = [*PEERS]
    with_workers = [name for name, (module, _) in PEERS.items() if "torchvision" in module or module in _WITH_WORKERS]
    assert [*peers_suite.without_room(names, job)] == with_workers
    free[0] = 0.064
    reasons = peers_suite.without_room(names, job)
    assert reasons["torchvision, Pillow"].startswith(
        "/dev/shm must have room for 5.09 GB of its workers' batches, got 0.06 GB beside "
    )
    free[0] = 7.0  # for one, and for timm's, which are uint8
    assert [*peers_suite.without_room(names, job)] == [name for name in with_workers[1:] if name != "timm"]
    free[0] = 22.0
    assert peers_suite.without_room(names, job) == {}
    free[0] = 0.0
    assert peers_suite.without_room(names, replace(job, workers=0)) == {}
