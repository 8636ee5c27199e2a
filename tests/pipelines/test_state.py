"""A loader stopped anywhere goes on with exactly the batches that would have come."""

import io
import json
import warnings
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from softfeed.pipelines import Loader, Recipe, SoftShift, presets
from softfeed.pipelines.shards.convert import ShardOptions, convert

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed; it comes with softfeed[test]")
HealthCheck, given, settings, st = hypothesis.HealthCheck, hypothesis.given, hypothesis.settings, hypothesis.strategies

SHIFT = Recipe(crop=SoftShift())


def assert_same(batch, other):
    assert batch._fields == other._fields
    for one, two in zip(batch, other, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=0)


def play(loader, epochs=1):
    """Batches of some epochs, and the state before each and after the last."""
    batches, states = [], [loader.state_dict()]
    for _ in range(epochs):
        for batch in loader:
            batches.append(batch)
            states.append(json.loads(json.dumps(loader.state_dict())))
    return batches, states


@pytest.mark.parametrize("every_operation", ["resized"], indirect=True)
def test_every_place_of_two_epochs_can_be_gone_on_from(noise_set, every_operation, make_loader):
    """At step 0, in the middle, at an epoch's last step and after it, with every operation, however the data lies."""
    batches, states = play(make_loader(noise_set, every_operation, prefetch=4, targets="soft"), epochs=2)
    assert len(batches) == 8
    loader = make_loader(noise_set, every_operation, prefetch=1, targets="soft")
    for step in (0, 1, 3, 4, 7):
        loader.load_state_dict(states[step])
        assert loader.state_dict() == states[step]
        rest, told = play(loader)
        assert len(rest) == 4 - step % 4
        for batch, expected in zip(rest, batches[step:], strict=False):
            assert_same(batch, expected)
        assert told == states[step : step + len(rest) + 1]
    # the epoch after a rest is whole
    loader.load_state_dict(states[2])
    for batch, expected in zip([*loader, *loader], batches[2:], strict=True):
        assert_same(batch, expected)


@pytest.mark.parametrize("name", ["hard-imagenet", "hard-cifar", "soft-cifar-ta"])
def test_presets_go_on(noise_sets, make_loader, name):
    recipe = presets.by_name(name)
    batches, states = play(make_loader(noise_sets["encoded"], recipe, 6, last_batch="fill"))
    loader = make_loader(noise_sets["encoded"], recipe, 6, last_batch="fill")
    loader.load_state_dict(states[4])
    rest = list(loader)
    assert len(rest) == 3
    for batch, expected in zip(rest, batches[4:], strict=True):
        assert_same(batch, expected)


def test_evaluation_goes_on(noise_set, make_loader):
    recipe = presets.evaluation(occlusion=0.3)
    batches, states = play(make_loader(noise_set, recipe, 9))
    loader = make_loader(noise_set, recipe, 9)
    loader.load_state_dict(states[3])
    rest = list(loader)
    assert [len(batch.index) for batch in rest] == [9, 1]
    for batch, expected in zip(rest, batches[3:], strict=True):
        assert_same(batch, expected)


def test_state_is_small_plain_and_the_same_on_every_rank(noise_sets, make_loader):
    ranks = [make_loader(noise_sets["raw"], replace(SHIFT, flip=None), 6, rank=rank, world_size=3) for rank in range(3)]
    for loader in ranks:
        next(iter(loader))
    states = [loader.state_dict() for loader in ranks]
    assert states[0] == states[1] == states[2]
    assert (states[0]["epoch"], states[0]["position"]) == (0, 18)
    assert len(json.dumps(states[0])) < 4096
    file = io.BytesIO()
    torch.save(states[0], file)
    file.seek(0)
    assert torch.load(file, weights_only=True) == states[0]


def consume(loader, work):
    for step, _ in enumerate(loader):
        work(step)


def test_state_counts_what_was_handed_over_after_break_exception_and_set_epoch(noise_sets, make_loader):
    loader = make_loader(noise_sets["encoded"], SHIFT, prefetch=4)
    batches, states = play(loader, epochs=2)
    loader.set_epoch(0)
    for step, _ in enumerate(loader):
        if step == 1:
            break
    assert loader.state_dict() == states[2]
    with pytest.raises(ZeroDivisionError):
        consume(loader, lambda step: step / (2 - step))
    assert loader.state_dict() == states[7]
    loader.close()
    assert loader.state_dict() == states[7]
    # naming the epoch that was left, as frameworks do before every pass, keeps the place; another epoch begins at 0
    loader.load_state_dict(states[6])
    loader.set_epoch(1)
    rest = list(loader)
    assert_same(rest[0], batches[6])
    assert len(rest) == 2
    loader.load_state_dict(states[2])
    loader.set_epoch(1)
    assert loader.state_dict() == states[4]
    assert len(list(loader)) == 4
    # len is that of a whole epoch, always
    loader.load_state_dict(states[6])
    assert len(loader) == 4


def test_going_back_behind_a_state_is_told(noise_sets, make_loader):
    """As by a loop that begins with the epoch at whose end the state was saved: it would train that one twice."""
    loader = make_loader(noise_sets["encoded"], SHIFT)
    assert len(list(loader)) == 4
    assert loader.epoch == 1
    state = loader.state_dict()
    new = make_loader(noise_sets["encoded"], SHIFT)
    new.load_state_dict(state)
    assert new.epoch == 1
    new.set_epoch(1)
    with pytest.warns(
        UserWarning, match=r"^epoch 0 is played again: .* the beginning of epoch 1; go on with `for epoch"
    ):
        new.set_epoch(0)
    next(iter(new))
    new.set_epoch(0)  # which nothing is said of: it is not the state's any more


def test_a_state_of_numpy_numbers_is_plain(noise_sets, make_loader, tmp_path):
    size, seed = np.int64(32), np.int16(3)
    loader = Loader(noise_sets["encoded"], SHIFT, np.int64(8), size, seed=seed, device="cpu", rank=0, world_size=1)
    loader.set_epoch(np.int32(1))
    next(iter(loader))
    state = loader.state_dict()
    assert json.loads(json.dumps(state)) == state
    torch.save(state, tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == state


def by_sample(batches):
    """Each sample's image and confidence, by its index."""
    return {
        int(index): (image, confidence)
        for batch in batches
        for index, image, confidence in zip(batch.index, batch.images, batch.confidence, strict=True)
    }


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 2)])
@pytest.mark.parametrize("mode", ["drop", "fill", "keep"])
def test_another_world_size_plays_each_remaining_sample_once(noise_sets, make_loader, before, after, mode):
    data = noise_sets["raw"]
    whole = by_sample(make_loader(data, SHIFT, 37, last_batch="keep"))
    for step in range(1, 37 // (4 * before)):
        old = [make_loader(data, SHIFT, 4, last_batch=mode, rank=rank, world_size=before) for rank in range(before)]
        played = [batch for loader in old for batch in islice(loader, step)]
        state = old[0].state_dict()
        new = [make_loader(data, SHIFT, 4, last_batch=mode, rank=rank, world_size=after) for rank in range(after)]
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            for loader in new:
                loader.load_state_dict(state)
        over = new[0].state_dict()["epoch"] == 1  # "drop", and too few samples left for a step
        left = 37 - state["position"]
        assert [str(warning.message).split(":")[0] for warning in warned] == (
            [f"{left} samples at the end of epoch 0 are left out"] * after if over else []
        )
        rests = [[] if over else list(loader) for loader in new]
        assert len({len(rest) for rest in rests}) == 1
        first = [int(i) for batch in played for i in batch.index]
        second = [int(i) for rest in rests for batch in rest for i in batch.index]
        seen = first + second
        if mode == "fill":
            assert set(seen) == set(range(37))
        else:
            assert len(set(seen)) == len(seen)
            assert len(seen) == (37 if mode == "keep" else len(first) + (37 - len(first)) // (4 * after) * 4 * after)
        for index, (image, confidence) in by_sample(batch for rest in rests for batch in rest).items():
            if mode != "fill":  # where a sample may come again, with other draws
                torch.testing.assert_close(image, whole[index][0], rtol=0, atol=0)
                assert confidence == whole[index][1]


@pytest.mark.parametrize("every_operation", ["shifted"], indirect=True)
def test_the_same_batches_in_all_on_another_world_size(noise_sets, make_loader, every_operation):
    """With the batch over all ranks kept, schedules move as before, too: not one bit changes."""
    data, recipe = noise_sets["raw"], replace(every_operation, mix=None)  # which mixes the samples of one rank's batch
    batches, states = play(make_loader(data, recipe, 8))
    ranks = [make_loader(data, recipe, 4, rank=rank, world_size=2) for rank in range(2)]
    for loader in ranks:
        loader.load_state_dict(states[1])
    for *parts, expected in zip(*ranks, batches[1:], strict=True):
        for name, dim in (("images", 1), ("confidence", 1), ("labels", 0), ("index", 0), ("iou", 2)):
            together = torch.cat([getattr(part, name) for part in parts], dim=dim)
            torch.testing.assert_close(together, getattr(expected, name), rtol=0, atol=0)


def test_an_epoch_whose_rest_fits_no_step_is_over(noise_sets, make_loader):
    data = noise_sets["raw"]
    loader = make_loader(data, SHIFT, 8)
    assert len(list(islice(loader, 3))) == 3
    state = loader.state_dict()  # 24 of 37 samples
    assert state["position"] == 24
    new = make_loader(data, SHIFT, 8, rank=1, world_size=2)
    with pytest.warns(UserWarning, match=r"^13 samples at the end of epoch 0 .* step of 2 rank\(s\) of batches of 8$"):
        new.load_state_dict(state)
    assert (new.state_dict()["epoch"], new.state_dict()["position"]) == (1, 0)
    evaluation = make_loader(data, presets.evaluation(), 12)
    assert len(list(islice(evaluation, 3))) == 3
    three = make_loader(data, presets.evaluation(), 12, rank=0, world_size=3)
    with pytest.raises(ValueError, match="a step must have a sample for each of 3 ranks, got 1; use at most 1 rank"):
        three.load_state_dict(evaluation.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batch_size": 4},
            r"batch_size must be 8 \(or in all 8\) as in the state, got 4 on 1 rank\(s\); use the same",
        ),
        ({"seed": 3}, "seed must be 0 as in the state, got 3"),
        ({"targets": "soft"}, "targets must be confidence as in the state, got soft"),
        ({"shuffle": False}, "shuffle must be True as in the state, got False"),
        ({"last_batch": "fill"}, "last_batch must be drop as in the state, got fill"),
        (
            {"recipe": Recipe(crop=SoftShift(sigma=0.2))},
            r"recipe must be Recipe\(crop=SoftShift\(sigma=0\.3.* as in the state, got Recipe\(.*sigma=0\.2",
        ),
        (
            {"data": "folder"},
            r"data must be shard set of 37 images, checksum \w{8} as in the state, got image folder of 37 images, ",
        ),
    ],
)
def test_a_state_of_another_stream_is_refused(noise_sets, make_loader, changes, message):
    state = make_loader(noise_sets["raw"], SHIFT).state_dict()
    options = {"data": "raw", "recipe": SHIFT, **changes}
    loader = make_loader(noise_sets[options.pop("data")], options.pop("recipe"), **options)
    before = loader.state_dict()
    with pytest.raises(ValueError, match=message) as caught:
        loader.load_state_dict(state)
    assert "\n" not in str(caught.value)
    assert loader.state_dict() == before


def test_other_data_of_the_same_kind_and_other_sizes_are_refused(noise_sets, photo_folder, tmp_path, make_loader):
    convert(noise_sets["folder"], tmp_path / "other", ShardOptions(raw=True, shard_samples=10, seed=1))
    state = make_loader(noise_sets["raw"], SHIFT).state_dict()
    with pytest.raises(ValueError, match=r"data must be shard set of 37 .* got shard set of 37"):
        make_loader(tmp_path / "other", SHIFT).load_state_dict(state)
    with Loader(photo_folder, presets.evaluation(), 2, 48, device="cpu") as small:
        state = small.state_dict()
    with Loader(photo_folder, presets.evaluation(), 2, 64, device="cpu") as large:
        with pytest.raises(ValueError, match="image_size must be 48 as in the state, got 64"):
            large.load_state_dict(state)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda state: None, "state must be what a loader's state_dict returned, got NoneType"),
        (lambda state: {"epoch": 1}, r"state must be what a loader's state_dict returned, got one with \['epoch'\]"),
        (lambda state: {**state, "version": 9}, "version of the state must be 1, got 9"),
        (lambda state: {**state, "position": -1}, "must not be negative, got 0 and -1"),
        (lambda state: {**state, "position": 38}, r"position must be in \[0, 37\], got 38"),
    ],
)
def test_what_is_no_state_is_refused(noise_sets, make_loader, break_it, message):
    loader = make_loader(noise_sets["raw"], SHIFT)
    with pytest.raises(ValueError, match=message):
        loader.load_state_dict(break_it(loader.state_dict()))


def test_a_recipe_with_a_new_setting_at_its_default_is_the_same(noise_sets, make_loader):
    """A state outlives versions that add settings to recipes."""
    loader = make_loader(noise_sets["raw"], SHIFT)
    state = loader.state_dict()
    del state["recipe_fields"]["crop"]["power"]
    loader.load_state_dict({**state, "recipe": "as an older version wrote it"})
    with pytest.raises(ValueError, match="recipe must be"):
        make_loader(noise_sets["raw"], replace(SHIFT, crop=SoftShift(power=3.0))).load_state_dict(state)


def test_a_state_of_other_pixels_is_refused(noise_sets, make_loader):
    """Those of a GPU that repeats chroma; a state from before that was a setting is of one that interpolated it."""
    loader = make_loader(noise_sets["encoded"], presets.evaluation())
    state = loader.state_dict()
    assert state["fancy_upsampling"] is True
    with pytest.raises(ValueError, match="fancy_upsampling must be False as in the state, got True; use the same"):
        loader.load_state_dict(state | {"fancy_upsampling": False})
    del state["fancy_upsampling"]
    loader.load_state_dict(state)


SIZES = {"batch_size": st.integers(1, 12), "world_size": st.integers(1, 4), "mode": st.sampled_from(["drop", "fill"])}


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(**SIZES, shuffle=st.booleans(), epochs=st.integers(1, 3), stop=st.integers(0, 40), data=st.data())
def test_any_rank_stopped_anywhere_goes_on(
    noise_sets, make_loader, batch_size, world_size, mode, shuffle, epochs, stop, data
):
    if batch_size * world_size > 37:
        mode = "fill"
    place = {"rank": data.draw(st.integers(0, world_size - 1)), "world_size": world_size}
    options = {"last_batch": mode, "shuffle": shuffle, **place}
    with make_loader(noise_sets["raw"], SHIFT, batch_size, **options) as loader:
        batches, states = play(loader, epochs)
        assert len(batches) == epochs * len(loader)
    stop %= len(states)
    with make_loader(noise_sets["raw"], SHIFT, batch_size, **options) as loader:
        loader.load_state_dict(states[stop])
        rest = []
        while len(rest) < len(batches) - stop:
            rest += list(loader)
    for batch, expected in zip(rest, batches[stop:], strict=True):
        assert_same(batch, expected)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
def test_it_is_stateful_as_torchdata_understands_it(noise_sets, make_loader):
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="torchdata is not installed")

    class Batches(torch.utils.data.IterableDataset):
        """A loader as a data set of whole batches."""

        def __init__(self):
            self.loader = make_loader(noise_sets["raw"], SHIFT)

        def __iter__(self):
            return iter(self.loader)

        def state_dict(self):
            return self.loader.state_dict()

        def load_state_dict(self, state):
            self.loader.load_state_dict(state)

    whole = stateful.StatefulDataLoader(Batches(), batch_size=None)
    batches, states = [], []
    for _ in range(2):
        for batch in whole:
            batches.append(batch)
            states.append(whole.state_dict())
    for stop in (0, 2, 3, 5):
        resumed = stateful.StatefulDataLoader(Batches(), batch_size=None)
        resumed.load_state_dict(states[stop])
        rest = list(resumed) or list(resumed)  # it has an empty pass to end an epoch that was over
        assert len(rest) == (3 - stop) % 4 or 4
        for batch, expected in zip(rest, batches[stop + 1 :], strict=False):
            assert_same(batch, expected)
