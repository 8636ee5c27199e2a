"""What is done to batches on a GPU: the host must not wait for it, and sends all that it has to send in pinned memory.

Here without a GPU, on tensors that have a device and no values: an operation that must know values fails on them.
"""

import contextlib

import numpy as np
import pytest
import torch
from softfeed.pipelines import CopyPaste, CutMix, Mixup, Mollify, Mosaic, Recipe, SoftShift
from softfeed.pipelines.batches import BatchBuilder
from softfeed.pipelines.mollify import ROLES
from softfeed.pipelines.output import Output
from softfeed.pipelines.threads import RowThreads
from softfeed.pipelines.uploads import uploaded
from torch.utils._python_dispatch import TorchDispatchMode

from .conftest import EVERY_SLOT

AWAY = torch.device("meta")  # stands for a GPU


class Uploads(TorchDispatchMode):
    """Fails for a copy from the host that waits, or that is not of pinned memory; counts the others."""

    def __init__(self, pinned):
        super().__init__()
        self._pinned, self.count = pinned, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        inputs = [value for value in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
        away = any(value.device == AWAY for value in [*inputs, result] if isinstance(value, torch.Tensor))
        for sent in [value for value in inputs if value.device.type == "cpu" and away]:
            assert function is torch.ops.aten._to_copy.default, f"{function} takes a tensor of the host"
            assert kwargs["non_blocking"], "the host waits for the copy"
            assert any(sent is value for value in self._pinned), "the copy is not of pinned memory"
            self.count += 1
        return result


class HostGenerator(torch.Generator):
    def __new__(cls, device):
        return super().__new__(cls)


@pytest.fixture
def uploads(monkeypatch):
    """Watches what goes to `AWAY` while it is entered."""
    pinned = []

    def pin(tensor):
        pinned.append(tensor.clone())
        return pinned[-1]

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    # neither knows such a device
    monkeypatch.setattr(torch, "Generator", HostGenerator)
    monkeypatch.setattr(torch, "autocast", lambda device, **options: contextlib.nullcontext())
    return Uploads(pinned)


def test_values_go_to_a_gpu_in_pinned_memory(uploads):
    with uploads:
        sent = uploaded(np.arange(3), AWAY)
    assert (sent.device, sent.dtype, sent.shape, uploads.count) == (AWAY, torch.int64, (3,), 1)


def test_values_stay_where_they_are_on_a_cpu():
    values = np.arange(3)
    assert np.shares_memory(uploaded(values, torch.device("cpu")).numpy(), values)
    tensor = torch.arange(3)
    assert uploaded(tensor, torch.device("cpu")) is tensor


@pytest.mark.parametrize("mix", [CutMix(), CopyPaste(), Mosaic(), Mixup()])
@pytest.mark.parametrize("channels_last", [False, True])
def test_no_step_after_the_graph_waits_for_the_gpu(make_loader, noise_folder, uploads, mix, channels_last):
    slots = EVERY_SLOT | {"mix": mix, "mollify": Mollify(1, 1, 2, 1)}
    loader = make_loader(noise_folder, Recipe(crop=SoftShift(), **slots), targets="soft")
    prepared = loader._preparer.of_epoch(0, shuffle=True)(loader._steps_from(0)[0])
    assert len(set(prepared.plan.mollification.role)) == len(ROLES), "a kind of step is not tried"
    builder = BatchBuilder(
        loader._source,
        loader.recipe,
        32,
        AWAY,
        Output(torch.bfloat16, channels_last),
        threads=RowThreads(1),
        softening="target-weight",
        extra=["iou", "index"],
    )
    images = torch.empty((16, 32, 32, 3) if channels_last else (16, 3, 32, 32), device=AWAY)
    builder.build(images, prepared.plan, prepared.index)  # what is made once may be waited for
    with uploads:
        batch = builder.build(images, prepared.plan, prepared.index)
    assert batch.images.shape == (2, 8, 3, 32, 32)
    assert [field.device for field in batch] == [AWAY] * 4
    # targets, overlaps and indices; patches; rows and shares or boxes of mixing; rows, shares and amplitudes of noise,
    # and again of mollification; rows and levels of blur
    assert uploads.count == 3 + 1 + 2 + 3 + 3 + 2
