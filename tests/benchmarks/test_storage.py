"""The suite `storage`, and the image folder that it and the peers share."""

import numpy as np
import pytest
from PIL import Image
from softfeed.benchmarks import measurement, storage_suite
from softfeed.benchmarks.peers_suite import same_files
from softfeed.benchmarks.result import from_json
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.sources.folder import scan_image_folder
from softfeed.train import cli


@pytest.fixture
def photographs(tmp_path):
    """12 JPEGs of 64 x 48 pixels, of three classes."""
    generator = np.random.default_rng(0)
    for number in range(12):
        path = tmp_path / "photographs" / f"class{number % 3}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (48, 64, 3), np.uint8)).save(path, quality=95, subsampling="4:4:4")
    return tmp_path / "photographs"


def test_every_form_is_played_and_weighed(photographs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measurement, "_WARM_BATCHES", 1)
    monkeypatch.setattr("softfeed.benchmarks.peers_suite._LEAST", 12)
    words = ["--image-size", "24", "--batch-size", "4", "--seconds", "0.001", "--repeats", "2", "--device", "cpu"]
    output = tmp_path / "storage.json"
    assert cli.main(["bench", str(photographs), "--suite", "storage", *words, "--output", str(output)]) == 0
    result = from_json(output)
    forms = list(storage_suite.forms(24))
    assert [rate.name for rate in result.rates] == forms
    assert forms[2:] == ["longest side 54, 4:2:0, quality 90", "longest side 32, 4:2:0, quality 90"]
    weights = [result.facts[name]["mean_bytes"] for name in forms]
    originals = [path.stat().st_size for path in photographs.rglob("*.jpg")]
    assert weights[0] == round(sum(originals) / 12)
    assert weights == sorted(weights, reverse=True)  # each form is smaller than the one before
    assert weights[3] < weights[0] / 4
    text = capsys.readouterr().out
    assert text.count(" times the images/s, with 0.") == 3
    with Image.open(output.with_suffix(".png")) as chart:
        assert chart.format == "PNG"


def test_sets_are_refused(photographs, tmp_path, capsys):
    folder = convert(photographs, tmp_path / "set", ShardOptions(), workers=1).folder
    assert cli.main(["bench", str(folder), "--suite", "storage"]) == 2
    assert "data must be an image folder for storage, got the shard set" in capsys.readouterr().err


@pytest.mark.parametrize(("least", "most", "count"), [(1, 12, 12), (30, 12, 36), (1, 6, 6), (1, 100, 12)])
def test_few_images_are_repeated_and_of_many_some_are_taken(photographs, tmp_path, monkeypatch, least, most, count):
    monkeypatch.setattr("softfeed.benchmarks.peers_suite._LEAST", least)
    paths, labels, classes = scan_image_folder(same_files(photographs, tmp_path / "same", max_side=None, most=most))
    assert len(paths) == count
    assert classes == ("class0", "class1", "class2")
    assert np.ptp(np.bincount(labels)) == 0  # of every class as many


def test_recipes_for_images_of_one_size_are_refused(photographs, capsys):
    assert cli.main(["bench", str(photographs), "--suite", "storage", "--recipe", "soft-cifar"]) == 2
    assert "recipe must have a crop that resizes for storage, got SoftShift" in capsys.readouterr().err
