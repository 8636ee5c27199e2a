"""Reading the samples of a shard that is not trusted: what its records say, and the sizes of their images."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from ..containers.container import Columns, Container, Content, Entry, FileReader, Problem
from ..containers.formats import CONTAINERS
from ..decoding import Undecodable, kept_reader
from ..manifest import Shard
from .findings import Findings

_WINDOW = 64  # images in memory at a time
_WINDOW_BYTES = 1 << 25  # encoded
_LARGEST_RECORD = 1 << 28  # bytes


@dataclass(frozen=True)
class ShardCheck:
    """One shard to check.

    Attributes:
        folder: the shard set.
        number: position of the shard in the set.
        file: name of the shard.
        index: name of its index; None if the format has none per shard.
        format: name of the container format.
        expected: what the manifest says of it; None if there is no manifest.
        rows: its rows of the table of samples; None if there is no table.
        first_sample: number of its first sample; None if unknown.
        first_row: number of the first of its rows.
        is_table_sound: the table is the one that the manifest speaks of.
        names: original names of its samples with their offsets in their file, if the shard cannot hold them.
        classes: class names; None if unknown.
        raw_shape: (height, width, 3) if images are pixels.
        has_class_folders: original names begin with the name of the class and a slash.
        decode: decode every image whole.
    """

    folder: Path
    number: int
    file: str
    index: str | None
    format: str
    expected: Shard | None
    rows: NDArray[Any] | None
    first_sample: int | None
    first_row: int
    is_table_sound: bool
    names: tuple[tuple[int, str], ...] | None
    classes: tuple[str, ...] | None
    raw_shape: tuple[int, int, int] | None
    has_class_folders: bool
    decode: bool

    @property
    def container(self) -> Container:
        """The container format."""
        return CONTAINERS[self.format]


class FoundSample(NamedTuple):
    """A sample as a shard holds it.

    Attributes:
        position: among the records of the shard.
        entry: where its record lies.
        content: what the record says.
        name: original name.
        image: content of the image file, or pixels.
        height: in pixels, as the image's header says or as it was decoded.
        width: in pixels.
    """

    position: int
    entry: Entry
    content: Content
    name: str
    image: bytes
    height: int = 0
    width: int = 0


class Complaints:
    """Notes what is wrong with the content of one shard.

    Attributes:
        any: whether something is.
    """

    def __init__(self, check: ShardCheck, findings: Findings) -> None:
        self._check = check
        self._findings = findings
        self.any = False

    def add(self, problem: str, offset: int, position: int | None = None, name: str | None = None) -> None:
        """Note a problem at an offset, of the sample at a position of the shard."""
        self.any = True
        first = self._check.first_sample
        sample = None if position is None or first is None else first + position
        self._findings.add(self._check.file, problem, offset=offset, sample=sample, name=name)


class ShardReading:
    """One pass over the samples of a shard, in order.

    Args:
        check: what to check.
        read: the open shard.
        complaints: where problems go.

    Attributes:
        records: offset of every record so far.
        end: first byte behind the last record.
        broken_at: offset behind which records cannot be told apart; None if there is no such place.
    """

    def __init__(self, check: ShardCheck, read: FileReader, complaints: Complaints) -> None:
        self._check = check
        self._read = read
        self._complaints = complaints
        self.records: list[int] = []
        self.end = 0
        self.broken_at: int | None = None

    def samples(self) -> Iterator[FoundSample]:
        """Those that could be read and whose images have a size."""
        window: list[FoundSample] = []
        size = 0
        for sample in self._readable():
            if window and (len(window) == _WINDOW or size + len(sample.image) > _WINDOW_BYTES):
                yield from self._sized(window)
                window, size = [], 0
            window.append(sample)
            size += len(sample.image)
        yield from self._sized(window)

    def _readable(self) -> Iterator[FoundSample]:
        for item in self._check.container.scan(self._check.folder / self._check.file):
            position = len(self.records)
            if isinstance(item, Problem):
                self._complaints.add(item.reason, item.offset, position)
                self.broken_at = item.offset if item.is_end else self.broken_at
                continue
            if item.offset != self.end:
                self._complaints.add(
                    f"record must begin at {self.end}, where the one before ends", item.offset, position
                )
            self.end = item.offset + item.size
            self.records.append(item.offset)
            try:
                yield self._sample(position, item)
            except ValueError as error:
                self._complaints.add(str(error), item.offset, position)

    def _sample(self, position: int, entry: Entry) -> FoundSample:
        """Sample of a record. Raises ValueError if it holds none, several, or one too large to check."""
        if entry.size > _LARGEST_RECORD:
            raise ValueError(f"record must be at most {_LARGEST_RECORD} bytes to be checked, got {entry.size}")
        contents = self._check.container.contents(entry, self._read, Columns())
        if len(contents) != 1:
            raise ValueError(f"record must hold one sample, got {len(contents)}")
        (content,) = contents
        unwrap = self._check.container.unwrap
        if entry.parts > 1 and unwrap is not None:
            image = unwrap(self._read(entry.offset, entry.size), Columns())
        else:
            image = self._read(*content.image)
        names = self._check.names
        name = content.name if names is None else names[position][1] if position < len(names) else None
        if not name:
            raise ValueError("sample must have its original name, got none")
        return FoundSample(position, entry, content, name, image)

    def _sized(self, window: list[FoundSample]) -> Iterator[FoundSample]:
        if self._check.raw_shape is not None:
            yield from self._with_pixels(window, *self._check.raw_shape[:2])
            return
        sizes = kept_reader(check=self._check.decode).decode([sample.image for sample in window])
        for sample, size in zip(window, sizes, strict=True):
            if isinstance(size, Undecodable):
                self._refuse(sample, f"image must decode, got {size.reason}")
            else:
                yield sample._replace(height=size.height, width=size.width)

    def _with_pixels(self, window: Iterable[FoundSample], height: int, width: int) -> Iterator[FoundSample]:
        for sample in window:
            if len(sample.image) != height * width * 3:
                self._refuse(sample, f"image must be {height * width * 3} bytes of pixels, got {len(sample.image)}")
            else:
                yield sample._replace(height=height, width=width)

    def _refuse(self, sample: FoundSample, problem: str) -> None:
        self._complaints.add(problem, sample.content.image.offset, sample.position, sample.name)
