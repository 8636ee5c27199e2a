"""What is wrong with a shard set, said file by file: with the place in the file and the sample where there is one."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

MOST_PER_FILE = 20  # findings that are listed; a file that is damaged all over is not worth a thousand lines
_LONGEST = 300  # characters of a text that comes from the file


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    Attributes:
        file: name of the file inside the set.
        problem: what must be and what is, one line of printable characters.
        offset: in the file, in bytes, if it is about a place.
        sample: row of the table of samples, if it is about a sample.
        name: original name of that sample, if it could be read.
    """

    file: str
    problem: str
    offset: int | None = None
    sample: int | None = None
    name: str | None = None

    def __str__(self) -> str:
        """One line, such as `shard-000002.tar at byte 1024, sample 7 (cat/1.jpg): label must be 3, got 4`."""
        place = "" if self.offset is None else f" at byte {self.offset}"
        sample = "" if self.sample is None else f", sample {self.sample}"
        return f"{self.file}{place}{sample}{'' if self.name is None else f' ({self.name})'}: {self.problem}"

    def to_json(self) -> dict[str, Any]:
        """Its attributes."""
        return asdict(self)


class Findings:
    """Collects findings, up to `MOST_PER_FILE` of each file; those beyond are counted."""

    def __init__(self) -> None:
        self.listed: list[Finding] = []
        self.unlisted: Counter[str] = Counter()
        self._count: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many there are, with those that are not listed."""
        return len(self.listed) + self.unlisted.total()

    def __bool__(self) -> bool:
        return bool(self.listed)

    def add(
        self, file: str, problem: str, *, offset: int | None = None, sample: int | None = None, name: str | None = None
    ) -> None:
        """Note a finding; texts may hold anything."""
        name = None if name is None else printable(name)
        self.extend([Finding(printable(file), printable(problem), offset, sample, name)])

    def extend(self, findings: Iterable[Finding], unlisted: Counter[str] | None = None) -> None:
        """Note findings that were collected elsewhere."""
        for finding in findings:
            self._count[finding.file] += 1
            if self._count[finding.file] <= MOST_PER_FILE:
                self.listed.append(finding)
            else:
                self.unlisted[finding.file] += 1
        self.unlisted.update(unlisted or {})

    def about(self, *files: str) -> bool:
        """Whether something is wrong with one of these files."""
        return any(self._count[file] for file in files)


def printable(text: str) -> str:
    """A text from a file as it can be shown: neither long nor with line breaks or commands to a terminal."""
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode()
        for character in text
    )
