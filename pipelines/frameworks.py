"""What training frameworks look for on a `torch.utils.data.DataLoader`, for a loader that is none.

Lightning (2.6) calls `loader.sampler.set_epoch(epoch)` before each epoch, and takes a loader whose sampler is a
`SequentialSampler` for one that does not shuffle, and a loader that has a sampler must have a `batch_sampler`, too, if
only None. timm's training script calls `loader.sampler.set_epoch` if there are several processes. accelerate (1.15)
passes a loader that is no `DataLoader` through as it is; Lightning's Fabric refuses it in `setup_dataloaders`, which it
does not need, as its batches are on the device. Scripts use `len(loader.dataset)`, its class names, labels and single
samples, and `loader.batch_size` in their messages and schedules.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import cached_property
from typing import SupportsIndex

import numpy as np
from PIL import Image
from torch.utils.data import Sampler, SequentialSampler

from .reading import SampleReader
from .shapes import UnreadableImageError
from .shards.decoding import Undecodable, kept_reader
from .sources import Source


class DatasetView:
    """The data set of a loader, with the attributes of `torchvision.datasets.ImageFolder`.

    It holds no images: each is read and decoded when it is asked for, which is for looking at some, not for training.

    Args:
        source: The data set.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def __len__(self) -> int:
        """Samples over all ranks."""
        return len(self._source)

    def __getitem__(self, index: SupportsIndex) -> tuple[Image.Image, int]:
        """The whole image of a sample, as a loader on a CPU decodes it, and its label.

        Args:
            index: Its position in the data set, as batches tell it with `index=True`; below 0 from the end.

        Returns:
            The image in RGB, turned as its EXIF orientation says, neither cropped nor normalised; and a position in
            `classes`.

        Raises:
            TypeError: if `index` is no whole number, or several.
            IndexError: if there is no such sample.
            ReadError: if it cannot be read.
            UnreadableImageError: if it does not decode, or has more than 2^26 pixels.
        """
        position = self._source.position(index, lowest=-len(self))
        # a reader of its own, as threads may ask at once, and closed at once, as nobody closes a data set
        with closing(self._reader.another()) as reader:
            content = reader.read_one(position)
        label = int(self._source.labels[position])
        if self._source.raw_shape is not None:
            return Image.fromarray(content), label
        (decoded,) = kept_reader(check=True, keep_pixels=True).decode([content.tobytes()])
        if isinstance(decoded, Undecodable):
            raise UnreadableImageError(self._source, position, decoded.reason)
        return Image.frombytes("RGB", (decoded.width, decoded.height), decoded.pixels or b""), label

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.root!r}): {len(self):,} samples of {len(self.classes):,} classes"

    @cached_property
    def _reader(self) -> SampleReader:
        """Knows the shards as they were when the first sample was asked for; it opens none."""
        return SampleReader(self._source)

    @property
    def root(self) -> str:
        """Folder that the data set was opened from."""
        return str(self._source.root)

    @property
    def classes(self) -> list[str]:
        """Class names; labels are positions in it."""
        return list(self._source.classes)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Label of each class."""
        return {name: label for label, name in enumerate(self._source.classes)}

    @property
    def targets(self) -> list[int]:
        """Label of each sample, by its position in the data set."""
        return self._source.labels.tolist()


class EpochSampler(Sampler[int]):
    """What a shuffling loader shows as its sampler.

    Args:
        order: Positions in the data set that this rank plays in the next epoch, int64, in order.
        set_epoch: Lets the loader play a given epoch next.
    """

    def __init__(self, order: Callable[[], np.ndarray], set_epoch: Callable[[int], None]) -> None:
        self._order, self.set_epoch = order, set_epoch

    def __iter__(self) -> Iterator[int]:
        return iter(self._order().tolist())

    def __len__(self) -> int:
        """Samples that this rank plays in an epoch."""
        return len(self._order())


class SequentialEpochSampler(EpochSampler, SequentialSampler):
    """What a loader that does not shuffle shows as its sampler."""
