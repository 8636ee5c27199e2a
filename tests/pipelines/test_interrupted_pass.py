"""A pass that Ctrl-C or an error ends anywhere: the loader's next pass gives each image its own label and numbers."""

import gc
import threading

import pytest
import torch
from nvidia.dali.pipeline import Pipeline
from softfeed.pipelines import Flip, Recipe, SoftCrop, SoftShift
from softfeed.pipelines.ahead import WorkAhead
from softfeed.pipelines.runner import GraphRunner

from .conftest import reader_threads

RECIPES = {"folder": Recipe(crop=SoftCrop(), flip=Flip()), "raw": Recipe(crop=SoftShift(), flip=Flip())}


class Interruption(KeyboardInterrupt):
    """Told from a real one."""


def interrupt(monkeypatch, owner, name, *, call, before):
    """Have one call of a method interrupted, before or after what it does; as by Ctrl-C, in the main thread only."""
    method, calls = getattr(owner, name), []

    def interrupted(*args, **kwargs):
        if threading.current_thread() is not threading.main_thread():
            return method(*args, **kwargs)
        calls.append(1)
        if len(calls) == call and before:
            raise Interruption
        result = method(*args, **kwargs)
        if len(calls) == call:
            raise Interruption
        return result

    monkeypatch.setattr(owner, name, interrupted)


@pytest.fixture(params=["folder", "raw"])
def loader(request, noise_sets, make_loader):
    return make_loader(noise_sets[request.param], RECIPES[request.param], 4, device="cpu", prefetch=2, index=True)


def epoch_of(loader):
    loader.set_epoch(0)
    return [[field.clone() for field in batch] for batch in loader]


def epochs_of(loader, count):
    for _ in range(count):
        epoch_of(loader)


def assert_same(batches, expected):
    assert len(batches) == len(expected)
    for batch, other in zip(batches, expected, strict=True):
        assert all(torch.equal(*fields) for fields in zip(batch, other, strict=True))


# of the calls of a batch, the first feeds images, and the others numbers
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("call", [1, 2, 3, 5, 8, 14])
@pytest.mark.parametrize("name", ["feed_input", "schedule_run", "outputs"])
def test_an_interruption_while_the_graph_is_fed_or_emptied(loader, monkeypatch, name, call, before):
    expected = epoch_of(loader)
    with monkeypatch.context() as patch:
        interrupt(patch, Pipeline, name, call=call, before=before)
        with pytest.raises(Interruption):
            epochs_of(loader, 20)
    for _ in range(2):
        assert_same(epoch_of(loader), expected)


@pytest.mark.parametrize(("owner", "name"), [(GraphRunner, "drain"), (WorkAhead, "close")])
@pytest.mark.parametrize("before", [True, False])
def test_an_interruption_while_a_pass_is_left(loader, monkeypatch, owner, name, before):
    expected, others = epoch_of(loader), reader_threads()
    loader.set_epoch(0)
    left = iter(loader)
    next(left)
    with monkeypatch.context() as patch:
        interrupt(patch, owner, name, call=1, before=before)
        with pytest.raises(Interruption):
            left.close()
    gc.collect()  # the frames that the exception left
    for reader in reader_threads() - others:
        reader.join(60)
        assert not reader.is_alive()
    for _ in range(2):
        assert_same(epoch_of(loader), expected)


def test_a_pass_that_outlives_its_end_does_not_touch_the_next(loader, monkeypatch):
    """Ctrl-C can come before the pass that another one ends has been closed; somebody drops it later."""
    expected = epoch_of(loader)
    loader.set_epoch(0)
    left = iter(loader)
    next(left)
    with monkeypatch.context() as patch:
        interrupt(patch, type(left), "end", call=1, before=True)
        with pytest.raises(Interruption):
            iter(loader)
    loader.set_epoch(0)
    reader = loader._preparer._reader
    batches, played = iter(loader), []
    played.append([field.clone() for field in next(batches)])
    assert loader._preparer._reader is not reader, "two threads would read with it"
    left.close()
    assert_same([*played, *([field.clone() for field in batch] for batch in batches)], expected)
