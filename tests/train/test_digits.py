"""The demonstration's data on disk: what it is, and that only the right data are used again."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from softfeed.train import digits


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    said = []
    return folder, digits.prepare(folder, said.append), said


def test_splits_are_disjoint_complete_and_stratified():
    train, test = (digits.load_split(name) for name in digits.SPLITS)
    assert sorted([*train.numbers, *test.numbers]) == list(range(1797))
    assert len(test.labels) == digits.TEST_COUNT
    np.testing.assert_allclose(np.bincount(test.labels) / 360, np.bincount(train.labels) / 1437, atol=1 / 360)


def test_images_are_the_digits_enlarged():
    split = digits.load_split("test")
    # Mean over 2x2 pixels against the original; bicubic interpolation keeps it up to overshoot and rounding.
    small = split.images[..., 0].reshape(-1, 8, 2, 8, 2).mean(axis=(2, 4))
    original = load_digits().images[split.numbers] * (255 / 16)
    assert np.corrcoef(small.ravel(), original.ravel())[0, 1] > 0.99
    np.testing.assert_array_equal(split.labels, load_digits().target[split.numbers])


def test_normalisation_is_that_of_the_training_images():
    levels = digits.load_split("train").images / 255
    np.testing.assert_allclose(digits.NORMALIZE.mean, levels.mean(axis=(0, 1, 2)), atol=5e-5)
    np.testing.assert_allclose(digits.NORMALIZE.std, levels.std(axis=(0, 1, 2)), atol=5e-5)


def test_image_folder_and_shard_set_hold_every_digit(prepared):
    folder, shards, _ = prepared
    for name in digits.SPLITS:
        split = digits.load_split(name)
        assert digits.holds(shards[name], split)
        image = np.asarray(Image.open(folder / "images" / name / split.file(5)))
        np.testing.assert_array_equal(image, split.images[5])


def test_intact_sets_are_used_again_and_damaged_ones_are_made_again(prepared):
    folder, shards, _ = prepared
    shard = sorted(shards["test"].glob("*.tar"))[0]
    before = shard.read_bytes()
    # One pixel: size, checksum of the table and manifest stay as they were.
    damaged = bytearray(before)
    damaged[700] ^= 1
    shard.write_bytes(damaged)
    said = []
    digits.prepare(folder, said.append)
    assert len(said) == 2
    assert "already" in said[0]
    assert "writing 360 digits" in said[1]
    assert shard.read_bytes() == before


def test_test_digits_are_not_taken_for_training_digits(prepared):
    _, shards, _ = prepared
    assert not digits.holds(shards["test"], digits.load_split("train"))
    assert not digits.holds(shards["test"] / "missing", digits.load_split("test"))


def test_foreign_images_are_refused(tmp_path):
    foreign = tmp_path / "images" / "train" / "3" / "cat.png"
    foreign.parent.mkdir(parents=True)
    Image.new("RGB", (16, 16)).save(foreign)
    with pytest.raises(ValueError, match="output must be a folder for the demo alone, got other images in"):
        digits.prepare(tmp_path, lambda text: None)
