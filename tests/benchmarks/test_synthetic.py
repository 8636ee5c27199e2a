"""Synthetic sets: as many samples as asked for, cheap, valid, and like photographs in size."""

import errno
import os

import numpy as np
import pytest
from softfeed.benchmarks import synthetic
from softfeed.pipelines import Loader, presets
from softfeed.pipelines.shards import shard_set


def test_a_large_set_shares_its_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "_SHARD", 20)
    monkeypatch.setattr(synthetic, "_DISTINCT", 5)
    folder = synthetic.write_set(tmp_path / "set", 90)
    opened = shard_set.load(folder)  # checks the table against the shards
    assert opened.manifest.num_samples == 100
    tars = sorted(folder.glob("*.tar"))
    assert len(tars) == 5
    assert len({tar.stat().st_ino for tar in tars}) == 1
    with Loader(folder, presets.by_name("soft-imagenet"), 10, 32, index=True, num_threads=1, device="cpu") as loader:
        seen = [index for batch in loader for index in batch.index.tolist()]
    assert sorted(seen) == list(range(100))
    assert synthetic.write_set(folder, 100) == folder  # is kept
    with pytest.raises(ValueError, match="120 samples must go to a new folder"):
        synthetic.write_set(folder, 101)
    with pytest.raises(ValueError, match="synthetic must be at least 1, got 0"):
        synthetic.write_set(tmp_path / "none", 0)


def test_a_run_that_was_killed_is_made_good(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "_SHARD", 5)
    monkeypatch.setattr(synthetic, "_DISTINCT", 2)

    def killed(folder, times):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(synthetic, "_multiply", killed)
        patched.setattr(synthetic.shutil, "rmtree", lambda *arguments, **settings: None)  # a kill cleans nothing up
        with pytest.raises(KeyboardInterrupt):
            synthetic.write_set(tmp_path / "set", 10)
    assert any(tmp_path.iterdir())
    assert shard_set.load(synthetic.write_set(tmp_path / "set", 10)).manifest.num_samples == 10
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_file_that_has_no_room_for_names_is_copied(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "_SHARD", 5)
    monkeypatch.setattr(synthetic, "_DISTINCT", 5)
    link = os.link

    def few(original, path):
        if original.stat().st_nlink == 3:
            raise OSError(errno.EMLINK, "Too many links")
        link(original, path)

    monkeypatch.setattr(synthetic.os, "link", few)
    folder = synthetic.write_set(tmp_path / "set", 40)
    assert shard_set.load(folder).manifest.num_samples == 40
    names = [path.stat().st_nlink for path in folder.glob("*.tar")]
    assert sorted(names) == [2, 2, 3, 3, 3, 3, 3, 3]


def test_the_folder_above_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must go to a folder that exists, got .*; make its parent first"):
        synthetic.write_set(tmp_path / "no" / "set", 10)


def test_images_are_like_photographs(tmp_path):
    folder = synthetic.write_images(tmp_path / "images", 40)
    sizes = [path.stat().st_size for path in folder.rglob("*.jpg")]
    assert len(sizes) == 40
    assert 70_000 < np.mean(sizes) < 160_000  # ImageNet's mean is 110,000
    pixels = synthetic.photograph(np.random.default_rng(0), 120, 160)
    assert pixels.shape == (120, 160, 3)
    neighbours = np.corrcoef(pixels[:, 1:, 0].ravel(), pixels[:, :-1, 0].ravel())[0, 1]
    assert neighbours > 0.7
