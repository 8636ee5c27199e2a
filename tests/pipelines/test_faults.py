"""Samples that cannot be read or decoded: named where that is an error, left out without a trace where it is not."""

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from softfeed.pipelines import (
    ErrorBudgetError,
    GraphError,
    Loader,
    ReadError,
    Recipe,
    SoftCrop,
    SoftShift,
    UnreadableImageError,
    presets,
)

SHIFT, CROP, EVALUATION = Recipe(crop=SoftShift()), Recipe(crop=SoftCrop()), presets.evaluation()
SKIP = {"on_error": "skip", "max_errors": 37}


@pytest.fixture
def copied(noise_sets, tmp_path):
    """A copy of one of `noise_sets` that may be damaged."""
    return lambda kind: shutil.copytree(noise_sets[kind], tmp_path / kind)


@pytest.fixture
def copied_set(noise_set, tmp_path):
    """A copy of one kind of data set after the other."""
    return shutil.copytree(noise_set, tmp_path / noise_set.name)


def place_of(loader, index):
    """File, offset and size of a sample."""
    source = loader._source
    path = Path(source.files[int(source.file[index])])
    return path, int(source.offset[index]), path.stat().st_size if source.shard_set is None else int(source.size[index])


def damage(data, *indices):
    """Overwrite the bytes of some samples, without changing the time or size of their files; where they lie."""
    with Loader(data, CROP, 1, 32, device="cpu") as loader:
        places = [place_of(loader, index) for index in indices]
    for path, offset, size in places:
        stamp = path.stat()
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"?" * size)
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    return [path for path, _, _ in places]


def rows(batches):
    """All rows of some batches: index, image and confidence."""
    return [row for batch in batches for row in zip(batch.index.tolist(), batch.images, batch.confidence, strict=True)]


def assert_same_rows(some, others):
    assert [row[0] for row in some] == [row[0] for row in others]
    for one, other in zip(some, others, strict=True):
        torch.testing.assert_close(one[1:], other[1:], rtol=0, atol=0)


@pytest.mark.parametrize("prefetch", [1, 2, 4])
@pytest.mark.parametrize("kind", ["folder", "encoded"])
def test_training_goes_on_without_bad_samples_and_nothing_else_changes(noise_sets, copied, make_loader, kind, prefetch):
    data, bad = copied(kind), [3, 17, 30]
    damage(data, *bad)
    clean, loader = (make_loader(root, CROP, prefetch=prefetch, **SKIP) for root in (noise_sets[kind], data))
    for _ in range(2):  # in the second epoch, the bad ones are known
        expected, batches = list(clean), list(loader)
        assert [len(batch.index) for batch in batches] == [8] * 4
        for batch, whole in zip(batches, expected, strict=True):
            numbers = whole.index.tolist()
            for row, number in enumerate(numbers):
                good = [n for n in [*numbers[row:], *numbers[:row]] if n not in bad]
                assert batch.index[row] == good[0]  # itself, or the next good one
                if number not in bad:
                    torch.testing.assert_close(batch.images[row], whole.images[row], rtol=0, atol=0)
                    assert batch.confidence[row] == whole.confidence[row]
            labels = {int(i): int(label) for i, label in zip(whole.index, whole.labels, strict=True)}
            assert all(labels[int(i)] == label for i, label in zip(batch.index, batch.labels, strict=True))
    found = {error.index: error for error in loader.errors}
    played = set(range(37)) - {n for n in range(37) if n not in {int(i) for batch in expected for i in batch.index}}
    assert set(found) <= set(bad)
    assert set(found) >= set(bad) & played
    for index, error in found.items():
        assert error.source == loader.source(index)
        assert error.reason
    assert clean.errors == []


@pytest.mark.parametrize("kind", ["folder", "encoded", "recordio"])
def test_evaluation_leaves_bad_samples_out_and_nothing_else_changes(noise_sets, copied, make_loader, kind):
    data, bad = copied(kind), [0, 8, 9, 36]
    damage(data, *bad)
    recipe = presets.evaluation(occlusion=0.3)  # which draws something
    clean, loader = (make_loader(root, recipe, 9, **SKIP) for root in (noise_sets[kind], data))
    expected = [row for row in rows(clean) if row[0] not in bad]
    for _ in range(2):
        batches = list(loader)
        assert len(batches) == len(loader) == 5
        # the last batch has no sample of its own, and is filled with the first of the epoch that is good
        assert [batch.index.tolist() for batch in batches[-1:]] == [[1]]
        assert batches[-1].confidence.tolist() == [0]
        assert_same_rows(rows(batches[:-1]), expected)
        loader.set_epoch(0)
    assert [error.index for error in loader.errors] == bad
    *_, last = make_loader(data, recipe, 9, targets="labels", **SKIP)
    assert last.labels.tolist() == [-100], "torch's cross-entropy would count the sample twice"


@pytest.mark.parametrize("prefetch", [1, 2, 4])
def test_an_image_that_fails_in_the_graph_is_replaced_and_the_batches_in_flight_played_again(
    photo_folder, tmp_path, make_loader, prefetch
):
    """A JPEG that is cut has a good header, so that only the graph finds out, with other batches behind it."""
    data = shutil.copytree(photo_folder, tmp_path / "photos")
    for name in ("flower/1.jpg", "temple/0.jpg", "temple/4.jpg"):  # samples 1, 5 and 9
        (data / name).write_bytes((data / name).read_bytes()[:4000])
    options = {"prefetch": prefetch, "shuffle": False, "last_batch": "fill", **SKIP}
    clean, loader = (make_loader(root, Recipe(crop=SoftCrop(), views=2), 3, **options) for root in (photo_folder, data))
    for _ in range(2):
        expected, batches = list(clean), list(loader)
        assert [batch.index.tolist() for batch in batches] == [[0, 2, 2], [3, 4, 3], [6, 7, 8], [0, 0, 0]]
        for batch, whole in zip(batches, expected, strict=True):
            for row, number in enumerate(whole.index.tolist()):
                if batch.index[row] == number:
                    torch.testing.assert_close(batch.images[:, row], whole.images[:, row], rtol=0, atol=0)
    assert [error.index for error in loader.errors] == [1, 5, 9]
    evaluation = make_loader(data, EVALUATION, 3, prefetch=prefetch, **SKIP)
    assert [batch.index.tolist() for batch in evaluation] == [[0, 2], [3, 4], [6, 7, 8], [0]]


def test_a_batch_without_a_good_sample_is_filled(noise_sets, copied, make_loader):
    data = copied("encoded")
    damage(data, *range(8, 16))
    loader = make_loader(data, CROP, shuffle=False, **SKIP)
    batches = list(loader)
    assert [batch.index.tolist() for batch in batches] == [
        [*range(8)],
        [16] * 8,
        [*range(16, 24)],
        [*range(24, 32)],
    ]
    assert len({float(image.sum()) for image in batches[1].images}) == 8  # each with the draws of its place
    views = make_loader(data, Recipe(crop=SoftCrop(), views=2), shuffle=False, **SKIP)
    assert [batch.images.shape[:2] for batch in views] == [(2, 8)] * 4


def test_data_without_a_good_sample(copied, make_loader):
    data = copied("folder")
    damage(data, *range(37))
    with pytest.raises(ErrorBudgetError, match=r"data must hold a sample that can be read, got none of 37 in .*folder"):
        list(make_loader(data, CROP, **SKIP))


def test_a_budget_that_is_used_up_names_the_last_failure(copied, make_loader, caplog):
    data = copied("encoded")
    damage(data, 3, 17, 30)
    for budget, allowed in ((2, 2), (0.03, 2), (0, 0)):
        loader = make_loader(data, CROP, shuffle=False, on_error="skip", max_errors=budget)
        with pytest.raises(
            ErrorBudgetError,
            match=rf"max_errors must be at least the number of samples that fail, got {allowed} and {allowed + 1} "
            r"failures; the last: cannot decode .*shard-0.*\.tar at offset \d+ \(class\d/\d\d\.png\): .*; "
            rf"softfeed verify --decode {data} tells what is wrong",
        ):
            list(loader)
        assert len(loader.errors) == allowed + 1
    with make_loader(data, CROP, shuffle=False, on_error="skip", max_errors=3) as loader:
        assert len(list(loader)) == 4
        assert len(loader.errors) == 3
    assert "softfeed skips a sample: cannot decode" in caplog.text


def test_the_state_keeps_what_failed(copied, make_loader, caplog):
    data = copied("encoded")
    damage(data, 3, 17, 30)
    loader = make_loader(data, CROP, shuffle=False, **SKIP)
    expected, states = [], []
    for batch in loader:
        expected.append(batch)
        states.append(json.loads(json.dumps(loader.state_dict())))
    known = [tuple(error) for error in states[1]["errors"]]
    assert 3 in [index for index, _, _ in known]
    caplog.clear()
    resumed = make_loader(data, CROP, shuffle=False, **SKIP)
    resumed.load_state_dict(states[1])
    assert_same_rows(rows(resumed), rows(expected[2:]))
    assert resumed.errors == loader.errors
    assert not any(source in caplog.text for _, source, _ in known), "a known failure was tried again"
    caplog.clear()
    resumed.load_state_dict(states[-1])
    assert len(list(resumed)) == 4
    assert not caplog.records, "a known failure was tried again"
    strict = make_loader(data, CROP, shuffle=False)
    strict.load_state_dict(states[1])
    with pytest.raises(UnreadableImageError):  # whoever wants errors raised gets them raised
        list(strict)


def test_the_budget_of_a_rank_goes_on_as_its_own(copied, make_loader):
    """Two ranks find as many bad samples as each may; the state to go on from has those of both."""
    data = copied("encoded")
    damage(data, 3, 5, 12, 13, 34)  # rank 0 plays 0 to 3, 8 to 11..., 32 to 35

    def ranks(budgets):
        options = {"shuffle": False, "last_batch": "fill", "on_error": "skip", "world_size": 2, "prefetch": 1}
        return [make_loader(data, CROP, 4, rank=rank, max_errors=budgets[rank], **options) for rank in range(2)]

    whole = ranks((2, 3))
    expected = [rows(loader) for loader in whole]
    assert [[error.index for error in loader.errors] for loader in whole] == [[3, 34], [5, 12, 13]]
    first = ranks((2, 3))
    for loader in first:
        batches = iter(loader)
        next(batches)
        next(batches)
        batches.close()
    states = [loader.state_dict() for loader in first]
    errors = sorted({tuple(error) for state in states for error in state["errors"]})
    assert [error[0] for error in errors] == [3, 5, 12, 13]
    resumed = ranks((2, 3))
    for loader, state, played in zip(resumed, states, expected, strict=True):
        loader.load_state_dict({**state, "errors": errors})
        assert_same_rows(rows(loader), played[8:])
        assert {error.index for error in loader.errors} == {3, 5, 12, 13, *([34] if loader.rank == 0 else [])}


def missing(path, loader):
    path.unlink()


def truncated(path, loader):
    os.truncate(path, path.stat().st_size // 2)


def flipped(path, loader):
    content = bytearray(path.read_bytes())
    shard_set = loader._source.shard_set
    offsets = [0] if shard_set is None else loader._source.offset[loader._source.file == 1].tolist()
    stamp = path.stat()
    for offset in offsets:
        for byte in range(16):
            content[offset + byte] ^= 0x41
    path.write_bytes(content)
    if loader._source.raw_shape is None:  # among raw pixels, only the time of the file tells
        os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def replaced(path, loader):
    other = path.with_name("other")
    other.write_bytes(b"?" * path.stat().st_size)
    os.utime(other, ns=(1, 1))
    other.replace(path)


def unreadable(path, loader):
    path.chmod(0)


@contextlib.contextmanager
def ordinary_user(folder):
    """Run as one who may not read what has no permissions; root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    for parent in [folder, *folder.parents]:
        if parent.is_relative_to(tempfile.gettempdir()):
            parent.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


FAULTS = [missing, truncated, flipped, replaced, unreadable]


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_in_every_kind_of_file_is_skipped_in_step_on_both_ranks(copied_set, make_loader, fault):
    with ordinary_user(copied_set):
        ranks = [make_loader(copied_set, EVALUATION, 5, rank=rank, world_size=2, **SKIP) for rank in range(2)]
    folder = ranks[0]._source.shard_set is None
    path = Path(ranks[0]._source.files[1])
    hit = set(np.flatnonzero(ranks[0]._source.file == 1).tolist())
    assert len(hit) == (1 if folder else 10)
    fault(path, ranks[0])
    with ordinary_user(copied_set):
        played = [[batch.index.tolist() for batch in loader] for loader in ranks]
    assert [len(batches) for batches in played] == [len(loader) for loader in ranks] == [4, 4]
    assert all(batch for batches in played for batch in batches), "an empty batch"
    errors = [error for loader in ranks for error in loader.errors]
    assert {error.index for error in errors} == hit
    assert all(str(path) in error.source and error.reason for error in errors)
    seen = [index for batches in played for batch in batches for index in batch]
    assert set(seen) == set(range(37)) - hit


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_in_every_kind_of_file_is_named(copied_set, make_loader, fault):
    with ordinary_user(copied_set):
        loader = make_loader(copied_set, EVALUATION, 5)
    path = Path(loader._source.files[1])
    fault(path, loader)
    played = []
    with ordinary_user(copied_set), pytest.raises((ReadError, UnreadableImageError)) as caught:
        played.extend(loader)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    if loader._source.shard_set is not None:
        assert f"{path} at offset " in str(caught.value)
    assert sum(len(batch.index) for batch in played) % 5 == 0


@pytest.mark.parametrize("kind", ["encoded", "tfrecord"])
def test_a_shard_that_is_written_to_while_it_is_read(copied, make_loader, kind):
    data = copied(kind)
    loader = make_loader(data, CROP, 4, prefetch=1, **SKIP)
    batches = iter(loader)
    next(batches)
    path = Path(loader._source.files[0])
    content = path.read_bytes()
    path.write_bytes(content[:1000] + bytes(len(content) - 1000))
    assert len(list(batches)) == len(loader) - 1
    assert loader.errors
    assert all(str(path) in error.source for error in loader.errors)
    assert all("replaced or written to since the data set was opened" in error.reason for error in loader.errors)


def test_an_image_replaced_by_a_smaller_one_is_named(copied, make_loader):
    data = copied("folder")
    strict, loader = (make_loader(data, EVALUATION, 37, **options) for options in ({}, SKIP))
    for each in (strict, loader):  # sizes are read now
        assert len(next(iter(each)).index) == 37
    path = Path(loader._source.files[5])
    Image.new("RGB", (20, 30)).save(path)
    with pytest.raises(UnreadableImageError, match=f"{path}: it was replaced, has 30x20 pixels and had 32x32"):
        list(strict)
    (batch,) = loader
    assert batch.index.tolist() == [index for index in range(37) if index != 5]


def test_the_shapes_beside_an_image_that_was_replaced_become_known(copied, make_loader):
    """A batch of images that were read before, one of which has another size now, and of new ones."""
    data = copied("folder")
    loader = make_loader(data, CROP, 4, shuffle=False, last_batch="fill", details=True, prefetch=1, **SKIP)
    clean = make_loader(data, CROP, 8, shuffle=False, last_batch="fill", details=True)
    expected = next(iter(clean))
    next(iter(loader))
    loader.close()
    shapes = loader._preparer._shapes
    known = int((shapes._height > 0).sum())
    assert 4 <= known < 37
    Image.new("RGB", (20, 30)).save(loader.source(1))
    indices = np.array([0, 1, known, known + 1])
    failures = shapes.check(indices, [np.fromfile(loader.source(int(index)), np.uint8) for index in indices])
    assert list(failures) == [1]
    assert "it was replaced, has 30x20 pixels and had 32x32" in str(failures[1])
    assert shapes.of(indices[[0, 2, 3]])[0].tolist() == shapes.of(indices[[0, 2, 3]])[1].tolist() == [32] * 3
    loader.set_epoch(0)
    batches = list(loader)
    assert [error.index for error in loader.errors] == [1], "an innocent image is blamed"
    for name, array in expected.details.items():
        np.testing.assert_array_equal(batches[1].details[name], array[4:8])


def test_headers_that_fail_without_a_culprit(noise_sets, make_loader, monkeypatch):
    """The error is the graph's own, and the graph that failed is not used again."""
    loader = make_loader(noise_sets["folder"], CROP, prefetch=1, **SKIP)
    made = []

    class Failing:
        def feed_input(self, *_):
            raise RuntimeError("no memory left")

    monkeypatch.setattr("softfeed.pipelines.shapes._peek", lambda **_: made.append(Failing()) or made[-1])
    for _ in range(2):
        loader.set_epoch(0)
        with pytest.raises(GraphError, match=r"failed on a batch whose images decode .*no memory left"):
            list(loader)
    assert len(made) >= 2
    damaged = np.array([0, 1]), [np.fromfile(loader.source(0), np.uint8), np.full(9, 7, np.uint8)]
    with pytest.raises(GraphError, match="no memory left"):
        loader._preparer._shapes.check(*damaged)


@pytest.mark.parametrize("value", [-1, 1.5, float("nan"), float("inf")])
def test_bad_budgets(noise_sets, value):
    with pytest.raises(ValueError, match="max_errors must be a whole number, or a share in"):
        Loader(noise_sets["raw"], SHIFT, 8, 32, max_errors=value)


def test_bad_policies(noise_sets):
    with pytest.raises(ValueError, match="on_error must be one of 'raise', 'skip', got 'ignore'"):
        Loader(noise_sets["raw"], SHIFT, 8, 32, on_error="ignore")
    with pytest.raises(ValueError, match="timeout must be positive, got 0"):
        Loader(noise_sets["raw"], SHIFT, 8, 32, timeout=0)
