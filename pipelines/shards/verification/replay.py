"""Writing the samples of a shard again, to compare the bytes.

What the converter writes follows from the samples alone. So every sample that a shard holds goes through the writer of
its format once more, and the bytes that come out must be those that lie there: headers, checksums, padding, and all
else that nobody would think of checking one by one.
"""

from ...atomic import FileSummary
from ..containers.container import FileReader, Placed, ShardFile, StoredSample
from ..decoding import extension_of
from .file_check import first_difference
from .found import Complaints, FoundSample, ShardCheck

_HEADER = 512  # bytes before the content of a member, in the one format that has members
_MOST_CLASSES = 1 << 31  # the table of samples has int32 labels


class ComparedFile(ShardFile):
    """Takes what a writer writes, and compares it with what a file holds there.

    Attributes:
        offset: where the next bytes belong; may be set.
        difference: offset of the first byte that differs since this was last set to None.
    """

    def __init__(self, read: FileReader) -> None:
        self._read = read
        self.offset = 0
        self.difference: int | None = None

    def write(self, *pieces: bytes) -> None:
        """Compare some bytes."""
        for data in pieces:
            found = self._read(self.offset, len(data))
            if found != data and self.difference is None:
                self.difference = self.offset + first_difference(found, data)
            self.offset += len(data)

    def finish(self) -> FileSummary:
        """Where the file ends; there is nothing to flush."""
        return FileSummary(self.offset, 0)

    def close(self) -> None:
        """Nothing to close."""


class Replay:
    """Writes samples again where they lie.

    Args:
        check: what to check.
        read: the open shard.
        complaints: where problems go.
    """

    def __init__(self, check: ShardCheck, read: FileReader, complaints: Complaints) -> None:
        self._check = check
        self._size = read.size
        self._complaints = complaints
        self._file = ComparedFile(read)
        self._writer = check.container.open_writer(self._file)

    def add(self, sample: FoundSample) -> Placed | None:
        """Compare a sample's record; returns where its image and name lie, None if it cannot be written."""
        label, classes, start = sample.content.label, self._check.classes, sample.entry.offset
        most = _MOST_CLASSES if classes is None else len(classes)
        if not 0 <= label < most:
            self._complain(sample, f"label must be in [0, {most}), got {label}", start)
            return None
        for problem in self._contradictions(sample):
            self._complain(sample, problem, start)
        self._file.offset, self._file.difference = start, None
        try:
            placed = self._writer.add(self._stored(sample))
        except ValueError as error:
            self._complain(sample, str(error), start)
            return None
        difference, length = self._file.difference, self._file.offset - start
        if difference is None and length != sample.entry.size:
            difference = start + min(length, sample.entry.size)
        if difference is not None:
            member = self._member(sample, difference)
            rule = f"record{member} must be as softfeed writes it for label {label}, this image and this name"
            self._complain(sample, f"{rule}, got other bytes", difference)
        return placed

    def finish(self, end: int) -> None:
        """Compare what follows the last record, which ends at `end`."""
        self._file.offset, self._file.difference = end, None
        length = self._writer.finish().bytes
        difference = self._file.difference
        if difference is None and length != self._size:
            difference = min(length, self._size)
        if difference is not None:
            self._complaints.add(
                f"shard must end after {length} bytes as softfeed ends it, got other bytes", difference
            )

    def index_text(self) -> str:
        """Index of the shard as it is."""
        return self._writer.index_text()

    def _complain(self, sample: FoundSample, problem: str, offset: int) -> None:
        self._complaints.add(problem, offset, sample.position, sample.name)

    def _stored(self, sample: FoundSample) -> StoredSample:
        content, classes = sample.content, self._check.classes
        extension = "rgb" if self._check.raw_shape is not None else extension_of(sample.image) or "img"
        class_name = content.class_name or "" if classes is None else classes[content.label]
        key = _key_of(sample)
        return StoredSample(
            key, sample.image, extension, content.label, class_name, sample.name, sample.height, sample.width
        )

    def _contradictions(self, sample: FoundSample) -> list[str]:
        """What the sample says against the names of the classes."""
        classes, label = self._check.classes, sample.content.label
        if classes is None:
            return []
        problems = []
        if sample.content.class_name not in (None, classes[label]):
            problems.append(
                f"class must be {classes[label]!r} as its label {label} says, got {sample.content.class_name!r}"
            )
        if self._check.has_class_folders and not sample.name.startswith(classes[label] + "/"):
            problems.append(f"original name must begin with the class {classes[label]!r} of its label {label}")
        return problems

    def _member(self, sample: FoundSample, offset: int) -> str:
        fields = [field.name for field in sample.entry.fields if field.offset - _HEADER <= offset]
        return f" (member .{fields[-1]})" if len(sample.entry.fields) > 1 and fields else ""


def _key_of(sample: FoundSample) -> int:
    """Number that the shard gives the sample; its position where the format has none."""
    return sample.position if sample.content.key is None else sample.content.key
