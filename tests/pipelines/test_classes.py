"""Labels in the classes of another data set, such as a validation set's in those of the training set."""

import re
import shutil

import numpy as np
import pytest
import torch
from softfeed.pipelines import Loader, presets
from softfeed.pipelines.fingerprint import fingerprint
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.sources import open_source

GIVEN = ("class2", "extra", "class0", "class1")


def labels_of(loader):
    """Label of each sample, by its position in the data set."""
    batches = list(loader)
    index, labels = (torch.cat([getattr(batch, field) for batch in batches]) for field in ("index", "labels"))
    return labels[index.argsort()].tolist()


def test_labels_are_positions_in_the_classes_that_are_given(noise_set, make_loader):
    own = make_loader(noise_set, presets.evaluation())
    given = make_loader(noise_set, presets.evaluation(), classes=GIVEN)
    assert given.classes == GIVEN
    assert (given.num_classes, given.num_targets, len(given.dataset.class_to_idx)) == (4, 4, 4)
    expected = [GIVEN.index(own.classes[label]) for label in labels_of(own)]
    assert labels_of(given) == expected == given.dataset.targets
    assert expected != own.dataset.targets


def test_soft_targets_have_a_column_for_each_given_class(noise_folder, make_loader):
    loader = make_loader(noise_folder, presets.evaluation(), classes=GIVEN, targets="soft")
    batch = next(iter(loader))
    assert batch.targets.shape == (8, 4)
    assert batch.targets.argmax(1).tolist() == [loader.dataset.targets[index] for index in batch.index.tolist()]
    assert not batch.targets[:, GIVEN.index("extra")].any()


@pytest.mark.parametrize("empty", [True, False], ids=["empty folder", "no folder"])
def test_a_validation_folder_may_lack_images_of_a_class(noise_folder, tmp_path, make_loader, empty):
    val = shutil.copytree(noise_folder, tmp_path / "val")
    shutil.rmtree(val / "class1")
    if empty:
        (val / "class1").mkdir()
        with pytest.raises(ValueError, match=r"got none in 1 of 3 \(first: class1\).*Loader\(classes=train_loader"):
            Loader(val, presets.evaluation(), 8, device="cpu")
    train = make_loader(noise_folder, presets.evaluation())
    loader = make_loader(val, presets.evaluation(), classes=train.classes)
    assert loader.classes == train.classes
    assert set(labels_of(loader)) == {0, 2}
    assert fingerprint(val).startswith("image folder of 25 images")


def test_one_class_of_several_is_enough(noise_folder, tmp_path, make_loader):
    val = tmp_path / "val"
    shutil.copytree(noise_folder / "class2", val / "class2")
    loader = make_loader(val, presets.evaluation(), classes=GIVEN)
    assert set(labels_of(loader)) == {0}


@pytest.mark.parametrize("kind", ["folder", "encoded"])
def test_a_class_that_is_not_among_them_is_named(noise_sets, kind):
    root = noise_sets[kind]
    with pytest.raises(ValueError, match="no classes but the 2 given, got 'class1', 'class2' in ") as caught:
        open_source(root, ["class0", "other"])
    assert str(caught.value).endswith(f"{root}, which lacks 'other'")
    with pytest.raises(ValueError, match=rf"the 2 given, got 'class2' in {re.escape(str(root))}$"):
        open_source(root, ["class1", "class0"])


def test_of_many_classes_the_first_are_named(noise_folder):
    with pytest.raises(ValueError, match="the 1,000 given, got 'class0', 'class1', 'class2' in ") as caught:
        open_source(noise_folder, [f"n{number:03d}" for number in range(1000)])
    assert str(caught.value).endswith("which lacks 'n000', 'n001', 'n002' and 997 more")


@pytest.mark.parametrize(
    ("classes", "error", "message"),
    [
        ("class0", TypeError, "classes must be a sequence of names, got 'class0'"),
        ({"class0": 0, "class1": 1}, TypeError, "classes must be a sequence of names, got {'class0': 0"),
        ({"class0"}, TypeError, "classes must be a sequence of names, got {'class0'}"),
        ([0, 1, 2], TypeError, r"classes must be a sequence of names, got \[0, 1, 2\]"),
        (3, TypeError, "classes must be a sequence of names, got 3"),
        (["class0", "class1", "class2", "class1"], ValueError, "got 'class1' more than once in those given"),
    ],
)
def test_what_are_no_classes_is_said(noise_folder, make_loader, classes, error, message):
    with pytest.raises(error, match=message):
        make_loader(noise_folder, presets.evaluation(), classes=classes)


def test_names_of_a_shard_set_that_are_not_unique_are_not_guessed(tmp_path, noise_folder):
    shard_set = tmp_path / "set"
    convert(noise_folder, shard_set)
    manifest = shard_set / "dataset.json"
    manifest.write_text(manifest.read_text().replace('"class1"', '"class2"'))
    assert open_source(shard_set, ["class0", "class2", "class2"]).classes == ("class0", "class2", "class2")
    with pytest.raises(ValueError, match=rf"got 'class2' more than once in those of {re.escape(str(shard_set))}"):
        open_source(shard_set, ["class2", "class0"])


def test_a_state_tells_classes_that_are_not_the_data_s_own(noise_set, make_loader):
    own = make_loader(noise_set, presets.evaluation())
    same = make_loader(noise_set, presets.evaluation(), classes=list(own.classes))
    array = make_loader(noise_set, presets.evaluation(), classes=np.array(own.classes))
    assert own.state_dict() == same.state_dict() == array.state_dict()
    given = make_loader(noise_set, presets.evaluation(), classes=GIVEN)
    another = make_loader(noise_set, presets.evaluation(), classes=sorted(GIVEN))
    for state in (own.state_dict(), another.state_dict()):
        with pytest.raises(ValueError, match=r"data must be .* as in the state, got .*, in 4 given classes, checksum"):
            given.load_state_dict(state)
    given.load_state_dict(given.state_dict())
