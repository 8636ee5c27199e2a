"""Some rows of a source as a source of their own."""

import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .opening import Source
from .spool import Extents, FileStamp


class Subset:
    """Some rows of another source.

    Args:
        source: the other.
        rows: of it, int64, at least one.
        split: how they were chosen, for the manifest.
    """

    def __init__(self, source: Source, rows: NDArray[np.int64], split: Mapping[str, Any]) -> None:
        self._source = source
        self._rows = rows
        self.split = split
        self.root = source.root
        self.format = source.format
        self.classes = source.classes
        self.labels = source.labels[rows]
        self.raw_shape = getattr(source, "raw_shape", None)

    def stamps(self) -> list[FileStamp]:
        """See `Source`; which rows were chosen counts too."""
        return [FileStamp(json.dumps(self.split, sort_keys=True), 0, 0), *self._source.stamps()]

    def names(self, rows: Sequence[int]) -> list[str]:
        """Names in the other source."""
        return self._source.names(self._rows[list(rows)].tolist())

    def extents(self, work: Path, executor: Executor | None, report: Callable[[int, int], None]) -> Extents:
        """Of these rows only, though all of the other source is read where it must be spooled."""
        whole = self._source.extents(work, executor, report)
        return whole._replace(file=whole.file[self._rows], offset=whole.offset[self._rows], size=whole.size[self._rows])
