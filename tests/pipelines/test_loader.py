"""What a training script relies on: lengths, epochs, ranks, determinism, and what a batch holds."""

import copy
import pickle
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from softfeed import softops
from softfeed.pipelines import (
    CenterCrop,
    Flip,
    Loader,
    Mixup,
    Mollify,
    Recipe,
    SoftCrop,
    SoftShift,
    StepDecay,
    TrivialAugment,
    presets,
)

RECIPE = Recipe(crop=SoftShift())


def load(data, recipe=RECIPE, batch_size=8, **options):
    return Loader(data, recipe, batch_size, 32, **{"device": "cpu", "index": True, **options})


def epoch(loader):
    """One epoch as (index, images, labels, confidence), concatenated."""
    batches = list(loader)
    fields = [torch.cat([batch[i] for batch in batches]).cpu() for i in range(4)]
    return fields[3], *fields[:3]


def assert_same(a, b):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["folder", "encoded", "raw"])
def test_batch(noise_sets, device, kind):
    with load(noise_sets[kind], device=device) as loader:
        assert (loader.num_samples, loader.num_classes, len(loader)) == (37, 3, 4)
        assert loader.classes == ("class0", "class1", "class2")
        batches = list(loader)
        assert len(batches) == 4
        batch = batches[0]
        assert batch._fields == ("images", "labels", "confidence", "index")
        assert (batch.images.shape, batch.images.dtype) == ((8, 3, 32, 32), torch.float32)
        assert (batch.labels.shape, batch.labels.dtype) == ((8,), torch.int64)
        assert (batch.confidence.shape, batch.confidence.dtype) == ((8,), torch.float32)
        assert {field.device.type for field in batch} == {device}
        for index, label in zip(batch.index.tolist(), batch.labels.tolist(), strict=True):
            assert f"class{label}/" in loader.source(index)


def test_batches_may_be_kept(noise_sets, device):
    """A batch is the consumer's own: later batches, epochs and the loader's end leave it as it was."""
    loader = load(noise_sets["raw"], device=device)
    kept, copies = [], []
    for _ in range(3):
        for batch in loader:
            kept.append(batch.images)
            copies.append(batch.images.clone())
    loader.close()
    del loader
    for a, b in zip(kept, copies, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_folder_and_shards_hold_the_same_pixels(noise_sets):
    played = {}
    for kind, data in noise_sets.items():
        with load(data, presets.evaluation(), batch_size=5) as loader:
            assert len(loader) == 8
            _, images, labels, confidence = epoch(loader)
        assert (confidence == 1).all()
        order = np.lexsort(images.reshape(37, -1)[:, :4].T.numpy())
        played[kind] = images[order], labels[order]
    assert_same(played["folder"], played["encoded"])
    assert_same(played["folder"], played["raw"])


@pytest.mark.parametrize("kind", ["folder", "raw"])
def test_the_same_seed_gives_the_same_epochs(noise_sets, kind):
    with load(noise_sets[kind]) as a, load(noise_sets[kind]) as b, load(noise_sets[kind], seed=1) as other:
        first, second = epoch(a), epoch(a)
        assert_same(first, epoch(b))
        assert_same(second, epoch(b))
        assert (first[0] != second[0]).any(), "the order did not change"
        assert (first[0] != epoch(other)[0]).any(), "the seed does not matter"
        # the same sample in another epoch gets another window
        confidence = {int(i): float(c) for i, c in zip(second[0], second[3], strict=True)}
        assert any(confidence.get(int(i)) not in (None, float(c)) for i, c in zip(first[0], first[3], strict=True))


def test_draws_do_not_depend_on_batch_size_ranks_or_prefetch(noise_sets):
    data = noise_sets["raw"]
    options = {"last_batch": "fill"}
    with load(data, batch_size=12, **options) as loader:
        whole = epoch(loader)
    with load(data, batch_size=4, prefetch=5, num_threads=1, **options) as loader:
        small = epoch(loader)
    assert_same([field[:37] for field in whole], [field[:37] for field in small])
    ranks = [load(data, batch_size=4, rank=rank, world_size=3, **options) for rank in range(3)]
    batches = [list(loader) for loader in ranks]
    together = [torch.cat([batches[rank][step][i] for step in range(4) for rank in range(3)]) for i in (3, 0, 1, 2)]
    for loader in ranks:
        loader.close()
    assert_same([field[:37] for field in whole], [field[:37] for field in together])


def test_set_epoch_and_break(noise_sets):
    with load(noise_sets["raw"]) as loader:
        epochs = [epoch(loader) for _ in range(3)]
        loader.set_epoch(1)
        assert_same(epochs[1], epoch(loader))
        assert_same(epochs[2], epoch(loader))
        loader.set_epoch(0)
        for batch in loader:
            assert_same([batch.index], [epochs[0][0][:8]])
            break
        assert_same(epochs[1], epoch(loader))  # a new iter is the next epoch, whole


ENDINGS = {
    "another one": lambda loader, state: iter(loader),
    "load_state_dict": lambda loader, state: loader.load_state_dict(state),
    "close()": lambda loader, state: loader.close(),
}


@pytest.mark.parametrize("by", ENDINGS)
def test_a_pass_that_the_loader_ended_is_not_taken_for_a_short_epoch(noise_sets, by):
    with load(noise_sets["raw"]) as loader:
        batches = iter(loader)
        next(batches)
        ENDINGS[by](loader, loader.state_dict())
        for _ in range(2):
            with pytest.raises(RuntimeError, match=re.escape(f"the only one, but this one was ended by {by}; make a")):
                next(batches)
        looked_at = iter(loader)
        ENDINGS[by](loader, loader.state_dict())
        with pytest.raises(RuntimeError, match="ended by"):
            next(looked_at)


@pytest.mark.parametrize("by", ENDINGS)
def test_a_pass_that_was_over_stays_over(noise_sets, by):
    with load(noise_sets["raw"]) as loader:
        whole, left = iter(loader), iter(loader)
        assert len(list(left)) == len(loader)
        ENDINGS[by](loader, loader.state_dict())
        assert list(left) == []
        left = iter(loader)
        next(left)
        left.close()
        ENDINGS[by](loader, loader.state_dict())
        assert list(left) == []
        with pytest.raises(RuntimeError, match="ended by another one"):
            next(whole)


def test_images_that_are_stored_raw_keep_their_size_unless_another_is_asked_for(noise_sets):
    with Loader(noise_sets["raw"], RECIPE, 8, device="cpu") as loader:
        assert loader.image_size == 32
        assert next(iter(loader)).images.shape == (8, 3, 32, 32)
    assert Loader(noise_sets["encoded"], RECIPE, 8, device="cpu").image_size == 224
    assert Loader(noise_sets["raw"], Recipe(crop=SoftCrop()), 8, 48, device="cpu").image_size == 48


@pytest.mark.parametrize("index", [-1, 37])
def test_there_is_no_source_of_a_sample_that_is_not_there(noise_sets, index):
    with load(noise_sets["raw"]) as loader, pytest.raises(IndexError, match=f"from 0 to 36, got {index}"):
        loader.source(index)


def test_a_loader_says_what_it_is(noise_sets):
    recipe = presets.by_name("soft-cifar")
    said = repr(Loader(noise_sets["folder"], recipe, 8, 32, device="cpu", rank=1, world_size=2))
    assert said.startswith(f"Loader({str(noise_sets['folder'])!r}, {recipe}, batch_size=8, image_size=32, ")
    assert said.endswith("rank=1, world_size=2, shuffle=True, last_batch='drop'): 37 samples of 3 classes in 2 batches")


@pytest.mark.parametrize("change", [{"flip": Flip()}, {"policy": TrivialAugment()}, {"mix": Mixup()}])
def test_what_changes_images_at_random_is_shuffled(noise_sets, change):
    fixed = Recipe(crop=CenterCrop(), flip=None)
    assert not fixed.training
    assert not presets.evaluation(occlusion=0.4).training
    loader = load(noise_sets["raw"], replace(fixed, **change), targets="soft", last_batch=None)
    with loader:
        assert len(loader) == 4
        assert not torch.equal(next(iter(loader)).index, torch.arange(8))


def test_labels_alone(noise_sets):
    """As from a `DataLoader`; of what is done to an image, nothing is told."""
    with load(noise_sets["raw"]) as loader, load(noise_sets["raw"], targets="labels", index=False) as plain:
        for batch, (images, labels) in zip(loader, plain, strict=True):
            assert_same([batch.images, batch.labels], [images, labels])


def test_batches_can_be_saved(noise_sets, tmp_path):
    with load(noise_sets["raw"], details=True) as loader:
        batch = next(iter(loader))
        torch.save(batch, tmp_path / "batch.pt")
    for again in (torch.load(tmp_path / "batch.pt", weights_only=False), copy.deepcopy(batch)):
        assert type(again) is type(batch)
        assert_same(batch[:-1], again[:-1])
        assert batch.details.keys() == again.details.keys()


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_a_loader_cannot_be_copied(noise_sets, copied):
    with load(noise_sets["raw"]) as loader, pytest.raises(TypeError, match="a Loader must be made in the process that"):
        copied(loader)


def test_an_epoch_shorter_than_the_prefetch(noise_sets):
    with load(noise_sets["encoded"], batch_size=32, prefetch=5) as loader:
        assert len(loader) == 1
        first, second = epoch(loader), epoch(loader)
        loader.set_epoch(0)
        assert_same(first, epoch(loader))
        assert (first[0] != second[0]).any()


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_plays_every_sample_exactly_once(noise_sets, world_size):
    played = []
    for rank in range(world_size):
        with load(noise_sets["encoded"], presets.evaluation(), 9, rank=rank, world_size=world_size) as loader:
            batches = list(loader)
            assert len(batches) == len(loader) == {1: 5, 2: 3, 3: 2}[world_size]
            played += [index for batch in batches for index in batch.index.tolist()]
    assert sorted(played) == list(range(37))


def test_training_plays_every_sample_at_most_once(noise_sets):
    with load(noise_sets["folder"]) as loader:
        index = epoch(loader)[0].tolist()
    assert len(index) == len(set(index)) == 32


def test_soft_targets_are_those_of_the_confidence(noise_sets):
    with load(noise_sets["raw"]) as hard, load(noise_sets["raw"], targets="soft", index=False) as soft:
        for (_, labels, confidence, _), batch in zip(hard, soft, strict=True):
            assert batch._fields == ("images", "targets")
            torch.testing.assert_close(batch.targets, softops.weighted_targets(labels, confidence, 3))
            torch.testing.assert_close(batch.targets.sum(dim=1), confidence)


def test_an_unchanged_script_trains_softly(noise_sets):
    """Cross-entropy on the loader's targets has the gradient of SA Listing 2's loss, transcribed here."""
    torch.manual_seed(0)
    with load(noise_sets["raw"]) as hard, load(noise_sets["raw"], targets="soft") as soft:
        labels, confidence = next(iter(hard))[1:3]
        targets = next(iter(soft)).targets
    logits = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(logits, targets.double()).backward()
    unmodified, logits.grad = logits.grad, None
    label, conf = labels[:, None], confidence.double()[:, None]
    one_hot = torch.ones_like(logits) * (1 - conf) / (3 - 1)
    one_hot = one_hot.scatter(dim=1, index=label, src=conf)
    log_prob = torch.nn.functional.log_softmax(logits, dim=1)
    kl = conf.squeeze(1) * torch.nn.functional.kl_div(log_prob, one_hot, reduction="none").sum(-1)
    kl.mean().backward()
    torch.testing.assert_close(unmodified, logits.grad, rtol=0, atol=1e-6)


def test_sigma_decays_by_epoch(noise_sets):
    recipe = Recipe(crop=SoftShift(sigma=StepDecay(0.3, epoch=2, factor=1000)))
    with load(noise_sets["raw"], recipe) as loader:
        means = [float(epoch(loader)[3].mean()) for _ in range(4)]
    assert means[0] < 0.95
    assert means[1] < 0.95
    assert means[2:] == [1.0, 1.0]


# every crop by itself and with all kinds of steps, and for one of them every step by itself
PRESETS = [name for name in presets.names() if name.count("-") == 1 or name.startswith("soft-cifar-")]
PRESETS = [name for name in PRESETS if name.count("-") < 3]
PRESETS += [
    "hard-cifar-ta-mixup-moll",
    "hard-imagenet-ra-mosaic",
    "soft-imagenet-aa-cutmix-moll",
    "soft-imagenet-augmix",
]


@pytest.mark.parametrize("name", PRESETS)
def test_every_kind_of_preset_runs(noise_sets, photo_folder, device, name):
    recipe = presets.by_name(name)
    data, size = (photo_folder, 64) if recipe.crop.resizes else (noise_sets["raw"], 32)
    with Loader(data, recipe, 8, size, device=device, details=True, targets="soft") as loader:
        batch = next(iter(loader))
        assert batch.targets.shape == (8, loader.num_targets) == (8, loader.num_classes)
    assert batch.images.isfinite().all()
    assert 0.2 < batch.images.std() < 3
    softens = name.startswith("soft") or "moll" in name
    certainty = batch.details["certainty"]
    assert (certainty < 1).any() if softens else (certainty == 1).all()
    assert ("policy_operation_0" in batch.details) == (recipe.policy is not None)
    assert ("mix_row" in batch.details) == (recipe.mix is not None)
    assert ("mollify_role" in batch.details) == name.endswith("-moll")


@pytest.mark.parametrize("label", ["degrade", "add", "add+smooth"])
def test_labels_of_mollification(noise_sets, label):
    recipe = Recipe(crop=SoftShift(), mollify=Mollify(1, 1, 1, 1, label=label))
    with load(noise_sets["raw"], recipe, targets="soft", details=True) as loader:
        assert loader.num_targets == 3 + label.startswith("add")
        for batch in loader:
            gamma, certainty = batch.details["mollify_gamma"], batch.details["certainty"]
            p = 1 / 3 + 2 / 3 * (1 - (1 - batch.details["visibility"].astype(np.float64)) ** 2)
            np.testing.assert_allclose(1 / 3 + 2 / 3 * certainty, p, rtol=0, atol=1e-6)
            assert (gamma[batch.details["mollify_role"] == "clean"] == 0).all()
            assert (gamma[batch.details["mollify_role"] == "pure_noise"] == 1).all()
            kept = 1 - gamma if label != "add" else np.ones(8)
            np.testing.assert_allclose(batch.targets[:, :3].sum(dim=1), p * kept, rtol=0, atol=1e-6)
            own = torch.tensor(loader.dataset.targets)[batch.index]
            np.testing.assert_allclose(batch.targets.gather(1, own[:, None])[:, 0], p * p * kept, rtol=0, atol=1e-6)
            if label.startswith("add"):
                np.testing.assert_allclose(batch.targets[:, 3], p * gamma, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["soft-cifar-ra", "soft-cifar-ta"])
def test_policies_change_pixels_and_repeat(noise_sets, name):
    plain = presets.by_name("soft-cifar")
    with load(noise_sets["raw"], presets.by_name(name)) as a, load(noise_sets["raw"], presets.by_name(name)) as b:
        first = epoch(a)
        assert_same(first, epoch(b))
    with load(noise_sets["raw"], plain) as loader:
        unpoliced = epoch(loader)
    assert_same([first[0], first[3]], [unpoliced[0], unpoliced[3]])
    changed = (first[1] - unpoliced[1]).abs().flatten(1).amax(dim=1) > 0.1
    assert changed.float().mean() > 0.5


def test_training_and_validation_loaders_at_once(noise_sets):
    with load(noise_sets["folder"]) as training, load(noise_sets["raw"], presets.evaluation()) as validation:
        alone = epoch(training)
        training.set_epoch(0)
        batches = []
        for batch in training:
            batches.append(batch)
            assert sum(len(other.images) for other in validation) == 37
        assert_same([alone[1]], [torch.cat([batch.images for batch in batches])])


def test_raw_sets_too_large_for_memory_are_read_from_their_files(noise_sets, monkeypatch):
    with load(noise_sets["raw"]) as loader:
        in_memory = epoch(loader)
    monkeypatch.setattr("softfeed.pipelines.reading._IN_MEMORY", 37 * 32 * 32 * 3 - 1)
    with load(noise_sets["raw"]) as loader:
        assert_same(in_memory, epoch(loader))
        assert loader._preparer._reader._pixels is None


def test_only_the_visible_part_is_decoded(photo_folder, monkeypatch):
    """The rectangles that go to the decoder cover what the windows show, and no more."""
    from softfeed.pipelines.runner import GraphRunner

    submitted = []
    submit = GraphRunner.submit
    monkeypatch.setattr(
        GraphRunner, "submit", lambda self, images, inputs: (submitted.append(inputs), submit(self, images, inputs))[1]
    )
    with Loader(photo_folder, Recipe(crop=SoftCrop()), 10, device="cpu", details=True, index=True) as loader:
        batch = next(iter(loader))
        heights, widths = loader._preparer._shapes.of(batch.index.numpy())
    left, top, width, height = batch.details["window"].T
    extent, start = submitted[0]["extent"], submitted[0]["start"]
    np.testing.assert_array_equal(start, np.stack([top.clip(0), left.clip(0)], axis=1))
    visible = [np.minimum(top + height, heights) - top.clip(0), np.minimum(left + width, widths) - left.clip(0)]
    np.testing.assert_array_equal(extent, np.stack(visible, axis=1))
    assert (extent.prod(axis=1) < heights * widths).all()
