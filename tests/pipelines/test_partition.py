"""The rules of epochs and ranks, for every combination of sizes that hypothesis finds."""

import pytest
from softfeed.pipelines.partition import partition

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed; it comes with softfeed[test]")
given, st = hypothesis.given, hypothesis.strategies

SIZES = {"num_samples": st.integers(1, 400), "batch_size": st.integers(1, 40), "world_size": st.integers(1, 9)}


def all_ranks(num_samples, batch_size, world_size, last_batch):
    try:
        return [partition(num_samples, batch_size, rank, world_size, last_batch) for rank in range(world_size)]
    except ValueError:
        return None


def positions(ranks):
    return [p for steps in ranks for start, count, *_ in steps for p in range(start, start + count)]


@given(**SIZES, last_batch=st.sampled_from(["drop", "fill", "keep"]))
def test_every_rank_has_as_many_steps_none_empty_none_too_large(num_samples, batch_size, world_size, last_batch):
    ranks = all_ranks(num_samples, batch_size, world_size, last_batch)
    if ranks is not None:
        assert len({len(steps) for steps in ranks}) == 1
        assert all(1 <= step.count <= batch_size for steps in ranks for step in steps)
        assert ranks[0]


@given(**SIZES)
def test_drop_plays_samples_once_and_leaves_less_than_a_step_out(num_samples, batch_size, world_size):
    ranks = all_ranks(num_samples, batch_size, world_size, "drop")
    if ranks is None:
        assert num_samples < batch_size * world_size
    else:
        assert sorted(positions(ranks)) == list(range(num_samples - num_samples % (batch_size * world_size)))


@given(**SIZES)
def test_fill_plays_every_sample_and_only_full_batches(num_samples, batch_size, world_size):
    ranks = all_ranks(num_samples, batch_size, world_size, "fill")
    played = positions(ranks)
    assert len(set(played)) == len(played), "a position twice would give two samples the same draws"
    assert {p % num_samples for p in played} == set(range(num_samples))
    assert len(played) - num_samples < batch_size * world_size
    assert {step.count for steps in ranks for step in steps} == {batch_size}


@given(**SIZES)
def test_keep_plays_every_sample_exactly_once(num_samples, batch_size, world_size):
    ranks = all_ranks(num_samples, batch_size, world_size, "keep")
    if ranks is None:
        # only what no rule could split: fewer samples than ranks, or batches of one
        assert num_samples < world_size or batch_size == 1
    else:
        assert sorted(positions(ranks)) == list(range(num_samples))


@given(**SIZES, last_batch=st.sampled_from(["drop", "fill", "keep"]))
def test_from_the_end_of_any_step_come_the_steps_after_it(num_samples, batch_size, world_size, last_batch):
    ranks = all_ranks(num_samples, batch_size, world_size, last_batch)
    for rank, steps in enumerate(ranks or []):
        assert [step.begin for step in steps] == [0, *(step.end for step in steps[:-1])]
        for number, step in enumerate(steps[:-1], 1):
            rest = partition(num_samples, batch_size, rank, world_size, last_batch, position=step.end)
            assert rest == steps[number:]


@given(**SIZES, last_batch=st.sampled_from(["drop", "fill", "keep"]), others=st.integers(1, 9), data=st.data())
def test_the_rest_of_an_epoch_fits_any_number_of_ranks(num_samples, batch_size, world_size, last_batch, others, data):
    ranks = all_ranks(num_samples, batch_size, world_size, last_batch)
    if ranks is None or len(ranks[0]) < 2:
        return
    position = data.draw(st.sampled_from([step.end for step in ranks[0][:-1]]))
    try:
        rests = [
            partition(num_samples, batch_size, rank, others, last_batch, position=position) for rank in range(others)
        ]
    except ValueError:
        assert last_batch == "keep"
        assert num_samples - position < others or batch_size == 1
        return
    assert len({len(steps) for steps in rests}) == 1
    assert all(1 <= step.count <= batch_size for steps in rests for step in steps)
    left = num_samples - position
    end = {"drop": left - left % (batch_size * others), "fill": -(-left // (batch_size * others)) * batch_size * others}
    assert sorted(positions(rests)) == list(range(position, position + end.get(last_batch, left)))


def test_a_step_of_all_ranks_is_consecutive_so_ranks_do_not_change_what_a_global_batch_holds():
    alone = partition(100, 12, 0, 1, "drop")
    three = [partition(100, 4, rank, 3, "drop") for rank in range(3)]
    for step, (start, count, *_) in enumerate(alone):
        together = [p for steps in three for p in range(steps[step].start, steps[step].start + steps[step].count)]
        assert sorted(together) == list(range(start, start + count))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 0, 0, 1, "drop"), "batch_size must be a whole number of at least 1, got 0"),
        ((10, 4, 3, 3, "drop"), r"rank must be in \[0, 3\), got 3"),
        ((10, 4, 0, 1, "rest"), "last_batch must be one of 'drop', 'fill', 'keep', got 'rest'"),
        ((10, 6, 0, 2, "drop"), r"batch_size must be at most a rank's share of the samples, 5 \(10 samples on 2"),
        ((2, 4, 0, 3, "keep"), "a step must have a sample for each of 3 ranks, got 2; use at most 2 rank"),
        ((45, 100, 0, 64, "keep"), r"a sample for each of 64 ranks, got 45; use at most 45 rank\(s\)$"),
        ((45, 1, 0, 64, "drop"), r"64 ranks, got 45; use at most 45 rank\(s\) or last_batch='fill'$"),
        ((5, 1, 0, 3, "keep"), "a sample for each of 3 ranks, got 2; use a batch_size of at least 2, or fewer ranks"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        partition(*arguments)


@given(**SIZES, last_batch=st.sampled_from(["drop", "keep"]))
def test_the_advice_for_a_step_that_is_too_small_helps(num_samples, batch_size, world_size, last_batch):
    advice = ""
    try:
        partition(num_samples, batch_size, 0, world_size, last_batch)
    except ValueError as error:
        advice = str(error)
    if "use a batch_size of at least 2" in advice:
        assert partition(num_samples, 2, 0, world_size, last_batch)
    elif "use a smaller batch" in advice:
        assert partition(num_samples, 1, 0, world_size, last_batch)
    elif advice:
        ranks = int(advice.partition("use at most ")[2].split()[0])
        assert partition(num_samples, 1, 0, ranks, last_batch)


@pytest.mark.parametrize("position", [-1, 11])
def test_bad_position(position):
    with pytest.raises(ValueError, match=rf"position must be in \[0, 10\], got {position}"):
        partition(10, 2, 0, 1, "drop", position=position)
