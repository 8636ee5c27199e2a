import json

import numpy as np
import pytest
from softfeed.pipelines.shards import splitting
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions
from softfeed.pipelines.shards.shard_set import load
from softfeed.pipelines.shards.splitting import convert_split, stratified

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed; it comes with softfeed[test]")
example, given, st = hypothesis.example, hypothesis.given, hypothesis.strategies


@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32),
)
@example([1, 1, 4], 0.5, 0)  # what classes of one image cannot give, a class whose share is whole does not give either
def test_every_class_gives_its_share(counts, share, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    if round(share * len(labels)) == 0 or not any(count > 1 for count in counts):
        return
    try:
        train, val = stratified(labels, share, seed)
    except ValueError:
        assert all(count == 1 for count in counts)
        return
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(len(labels)))
    assert np.array_equal(train, np.sort(train))
    assert np.array_equal(val, np.sort(val))
    taken = np.bincount(labels[val], minlength=len(counts))
    assert (taken < counts).all()  # training keeps an image of each class
    assert (np.abs(taken - share * np.array(counts)) < 1).all()
    kept_back = sum(np.ceil(share * count) >= count for count in counts)
    assert abs(len(val) - share * len(labels)) <= 0.5 + kept_back


def test_large_classes_are_split_exactly():
    labels = np.repeat([0, 1, 2, 3], [1000, 500, 10, 1])
    train, val = stratified(labels, 0.1, 0)
    assert np.bincount(labels[val], minlength=4).tolist() == [100, 50, 1, 0]
    assert len(train) + len(val) == 1511


def test_the_seed_decides():
    labels = np.repeat(np.arange(10), 50)
    draws = [stratified(labels, 0.2, seed)[1].tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0][:10] == [3, 4, 7, 12, 16, 17, 20, 26, 32, 46]  # change it only with the version of the format


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5])
def test_shares_out_of_range_are_refused(share):
    with pytest.raises(ValueError, match=rf"val_share must be in \(0, 1\), got {share}"):
        stratified(np.zeros(10, np.int64), share, 0)


def test_a_share_of_no_image_is_refused():
    with pytest.raises(ValueError, match=r"val_share must give validation an image, got 0.01 of 10"):
        stratified(np.zeros(10, np.int64), 0.01, 0)


def test_two_sets_without_a_common_image(tmp_path, image_folder, stored):
    source = image_folder(classes=3, each=10)
    outcomes = convert_split(source, tmp_path / "sets", val_share=0.2, workers=1)
    parts = {part: stored(tmp_path / "sets" / part) for part in ("train", "val")}
    convert(source, tmp_path / "whole", workers=1)
    assert sorted(parts["train"] + parts["val"]) == stored(tmp_path / "whole")
    assert [label for _, label, _ in parts["val"]] == [0, 0, 1, 1, 2, 2]
    assert [part for part, outcome in outcomes.items() if outcome.manifest.num_samples] == ["train", "val"]
    for part in ("train", "val"):
        created = load(tmp_path / "sets" / part).manifest.created
        assert created["split"] == {"part": part, "val_share": 0.2, "seed": 0}
        assert load(tmp_path / "sets" / part).manifest.classes == ("class0", "class1", "class2")
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == ["train", "val"]


def test_a_parquet_source_is_split(tmp_path, parquet_file, encoded, stored):
    images = [encoded(seed) for seed in range(12)]
    path = parquet_file(images=images, labels=[seed % 2 for seed in range(12)])
    convert_split(path, tmp_path / "sets", ShardOptions(raw=True), val_share=0.5, workers=2)
    names = [[name for name, _, _ in stored(tmp_path / "sets" / part)] for part in ("train", "val")]
    assert [len(part) for part in names] == [6, 6]
    assert len({*names[0], *names[1]}) == 12


@pytest.mark.parametrize("stage", ["in train", "between", "in val"])
def test_an_interrupted_split_is_finished(tmp_path, image_folder, content, monkeypatch, stage):
    source, dest = image_folder(classes=3, each=10), tmp_path / "sets"
    options = ShardOptions(shard_samples=4)
    convert_split(source, tmp_path / "whole", options, val_share=0.2, workers=1)

    def fail(kind, done, *_):
        part = "train" if not (dest / "train" / "dataset.json").exists() else "val"
        if {"in train": ("train", 8), "between": ("val", 0), "in val": ("val", 4)}[stage] == (part, done):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_split(source, dest, options, val_share=0.2, workers=1, progress=fail)
    outcomes = convert_split(source, dest, options, val_share=0.2, workers=1)
    assert (outcomes["train"] is None) == (stage != "in train")
    assert content(dest) == content(tmp_path / "whole")


def test_finished_sets_are_replaced_only_on_request(tmp_path, image_folder, content):
    source, dest = image_folder(classes=3, each=10), tmp_path / "sets"
    convert(source, dest / "val", workers=1)
    before = content(dest)
    with pytest.raises(FileExistsError, match=r"got a finished shard set in .*val; --overwrite replaces it"):
        convert_split(source, dest, val_share=0.2, workers=1)
    assert content(dest) == before  # found out before anything was written
    convert_split(source, dest, val_share=0.2, workers=1, overwrite=True)
    with pytest.raises(FileExistsError, match="got a finished shard set"):
        convert_split(source, dest, val_share=0.2, workers=1)


def test_a_set_finished_by_another_split_is_not_trusted(tmp_path, image_folder, monkeypatch):
    source, dest = image_folder(classes=3, each=10), tmp_path / "sets"

    def fail(subset, *_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(splitting, "convert", lambda *a, **k: convert(*a, **k) if a[1].name == "train" else fail(None))
        with pytest.raises(KeyboardInterrupt):
            convert_split(source, dest, val_share=0.2, workers=1)
    assert json.loads((dest / ".split.json").read_text())["train"]["num_samples"] == 24
    with pytest.raises(FileExistsError, match=r"finished shard set in .*train"):
        convert_split(source, dest, val_share=0.3, workers=1)
    outcomes = convert_split(source, dest, val_share=0.2, workers=1)
    assert (outcomes["train"], outcomes["val"].manifest.num_samples) == (None, 6)


@pytest.mark.parametrize("where", ["images", "images/sets"])
def test_a_split_leaves_nothing_in_its_source(tmp_path, image_folder, content, where):
    source = image_folder(classes=3, each=10)
    before = content(source)
    with pytest.raises(ValueError, match="destination must not lie in the source"):
        convert_split(source, tmp_path / where, val_share=0.2, workers=1)
    assert content(source) == before
    assert not (source / "sets").exists()


def test_two_splits_do_not_share_a_destination(tmp_path, image_folder):
    source, dest = image_folder(classes=3, each=10), tmp_path / "sets"

    def other(*_):
        with pytest.raises(BlockingIOError, match=r"must have one writer, got another .* at work in .*sets;"):
            convert_split(source, dest, val_share=0.5, workers=1, overwrite=True)
        seen.append((dest / ".split.json").read_bytes())

    seen = []
    convert_split(source, dest, val_share=0.2, workers=1, progress=other)
    assert len(set(seen)) == 1
    assert len(load(dest / "val").samples) == 6
