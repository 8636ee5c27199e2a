"""Reading ahead: a background thread that turns steps of an epoch into batches ready for the graph."""

from __future__ import annotations

import os
import queue
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

import numpy as np

from .sources import WHOLE_FILE, Source

T = TypeVar("T")

_OPEN_FILES = 128  # shards kept open; far below the usual limit of 1,024 descriptors


class ReadError(OSError):
    """A sample's bytes could not be read; the message names the file and the sample."""


class SampleReader:
    """Reads the bytes of samples, by position in the file: any order costs the same.

    Args:
        source: The data set.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._open: OrderedDict[int, int] = OrderedDict()

    def read(self, indices: np.ndarray) -> list[np.ndarray] | np.ndarray:
        """Bytes of some samples.

        Returns:
            Encoded images: a list of uint8 arrays of shape (bytes,). Raw images: uint8 (N, height, width, 3).

        Raises:
            ReadError: if a file is missing, unreadable or shorter than the data set says.
        """
        shape = self._source.raw_shape
        if shape is None:
            return [self._read_encoded(int(index)) for index in indices]
        pixels = np.empty((len(indices), *shape), np.uint8)
        for row, index in enumerate(indices):
            self._read_into(int(index), pixels[row].reshape(-1))
        return pixels

    def close(self) -> None:
        """Close the files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _read_encoded(self, index: int) -> np.ndarray:
        size = int(self._source.size[index])
        if size != WHOLE_FILE:
            image = np.empty(size, np.uint8)
            self._read_into(index, image)
            return image
        path = self._source.files[int(self._source.file[index])]
        try:
            image = np.fromfile(path, np.uint8)
        except OSError as error:
            raise ReadError(f"cannot read {path}: {error.strerror or error}") from error
        if not len(image):
            raise ReadError(f"cannot read {path}: the file is empty; remove it or convert the folder, see --max-bad")
        return image

    def _read_into(self, index: int, image: np.ndarray) -> None:
        try:
            descriptor = self._descriptor(int(self._source.file[index]))
            count = os.preadv(descriptor, [image], int(self._source.offset[index]))
        except OSError as error:
            raise ReadError(f"cannot read {self._source.describe(index)}: {error.strerror or error}") from error
        if count != len(image):
            raise ReadError(
                f"cannot read {self._source.describe(index)}: the file ends after {count} of {len(image)} bytes; "
                "the shard was cut or replaced since it was written, convert it again"
            )

    def _descriptor(self, file: int) -> int:
        if file in self._open:
            self._open.move_to_end(file)
            return self._open[file]
        if len(self._open) >= _OPEN_FILES:
            os.close(self._open.popitem(last=False)[1])
        self._open[file] = os.open(self._source.files[file], os.O_RDONLY | os.O_CLOEXEC)
        return self._open[file]


class ReadAhead(Generic[T]):
    """Runs `produce` over some items in a background thread, a few items ahead of the consumer.

    Iterate over it; an exception in the thread is raised at the place of the item that it belongs to. `close` stops
    the thread, also in the middle.

    Args:
        produce: Called in the thread with one item at a time, in order.
        items: What to call it with.
        depth: Results kept ahead, >= 1.
    """

    _END = object()

    def __init__(self, produce: Callable[..., T], items: Iterator, *, depth: int) -> None:
        self._results: queue.Queue = queue.Queue(maxsize=depth)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(produce, items), name="softfeed-reader", daemon=True)
        self._thread.start()

    def _run(self, produce: Callable[..., T], items: Iterator) -> None:
        try:
            for item in items:
                if not self._put(produce(item)):
                    return
            self._put(self._END)
        except BaseException as error:  # noqa: BLE001 - handed to the consumer, whatever it is
            self._put(error)

    def _put(self, result: object) -> bool:
        while not self._stopping.is_set():
            try:
                self._results.put(result, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[T]:
        while True:
            result = self._results.get()
            if result is self._END:
                return
            if isinstance(result, BaseException):
                raise result
            yield result

    def close(self) -> None:
        """Stop the thread and wait for it."""
        self._stopping.set()
        self._thread.join()
