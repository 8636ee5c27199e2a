"""A loader in memory with the interface of `softfeed.pipelines.Loader`, for tests of the trainer alone."""

import numpy as np
import pytest
import torch


class MemoryLoader:
    """Images in memory, in a new order each epoch; rank r takes every world_size-th sample of it."""

    def __init__(self, images, labels, confidence, *, batch_size, shuffle=True, rank=0, world_size=1, log=None):
        self.images, self.labels, self.confidence = images, labels, confidence
        self.batch_size, self.shuffle, self.rank, self.world_size = batch_size, shuffle, rank, world_size
        self.log = log
        self.epoch, self._first = 0, 0
        self._place = (0, 0)

    def __len__(self):
        own = len(self.labels) // self.world_size
        return own // self.batch_size if self.shuffle else -(-own // self.batch_size)

    def set_epoch(self, epoch):
        if epoch != self.epoch:
            self.epoch, self._first = epoch, 0

    def state_dict(self):
        return {"place": list(self._place)}

    def load_state_dict(self, state):
        self.epoch, self._first = state["place"]

    def __iter__(self):
        order = np.arange(len(self.labels))
        if self.shuffle:
            order = np.random.default_rng(self.epoch).permutation(order)
        epoch, first, self._first = self.epoch, self._first, 0
        self.epoch += 1  # as the real one does
        own = order[self.rank :: self.world_size]
        for step in range(first, len(self)):
            self._place = (epoch, step + 1)
            index = torch.from_numpy(own[step * self.batch_size : (step + 1) * self.batch_size])
            if self.log is not None:
                self.log.extend(index.tolist())
            yield self.images[index], self.labels[index], self.confidence[index]


def make_problem(count=96, size=8, seed=0):
    """Three classes that differ in which colour is bright; a tenth of a second to learn."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randn(count, 3, size, size, generator=generator) * 0.5
    images[torch.arange(count), labels] += 1.0
    confidence = 1 / 3 + 2 / 3 * torch.rand(count, generator=generator)
    return images, labels, confidence


@pytest.fixture
def problem():
    return make_problem()


@pytest.fixture
def memory_loader():
    return MemoryLoader
