"""Reading gzip and tar.gz files that are not trusted: what they grow to is bounded before anything is unpacked."""

import gzip
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

_MAGIC = b"\x1f\x8b"
_LARGEST = 512 << 20  # bytes that an archive may grow to; the largest read here is CIFAR with 190 MB
_LARGEST_MEMBER = 256 << 20  # bytes of one file, which is read into memory; that of CIFAR-100 has 155 MB
_PIECE = 1 << 20
_MOST_DEFLATED = 1032  # bytes that one of deflate can stand for: 258 in two bits


def is_gzip(path: Path) -> bool:
    """Whether a file begins as gzip does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(2) == _MAGIC


def most_content(stored: int, *, deflated: bool) -> int:
    """Bytes that a file can hold, at most, whose `stored` bytes are plain or deflated."""
    return stored * _MOST_DEFLATED if deflated else stored


class BoundedGzip:
    """A gzip file that refuses to grow beyond a number of bytes.

    Args:
        path: the file.
        limit: bytes of content, positive.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._file = gzip.open(path)
        self._limit = limit
        self._taken = 0

    def __enter__(self) -> "BoundedGzip":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """The next `size` bytes, fewer at the end.

        Raises:
            ValueError: if the file is cut or damaged, or holds more than the limit.
        """
        pieces, wanted = [], size
        while wanted > 0:
            try:
                piece = self._file.read(min(wanted, _PIECE))
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise ValueError(
                    f"gzip file must be whole, got {self._path} that fails {self._taken} bytes into its content "
                    f"({error}); copy or download it again"
                ) from None
            if not piece:
                break
            self._taken += len(piece)
            wanted -= len(piece)
            pieces.append(piece)
            if self._taken > self._limit:
                raise ValueError(f"gzip file must hold at most {self._limit} bytes, got more in {self._path}")
        return b"".join(pieces)


def tar_gz_files(path: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Content of some files in a tar.gz, by their names without folders. Nothing is written anywhere.

    Args:
        path: the archive.
        wanted: which to read, by name without folders.

    Raises:
        ValueError: if the archive is cut or damaged, or grows beyond 512 MiB.
    """
    found = {}
    try:
        with (
            BoundedGzip(path, _LARGEST) as content,
            tarfile.open(fileobj=content, mode="r|") as tar,  # type: ignore[call-overload]
        ):
            for info in tar:
                name = info.name.rpartition("/")[2]
                if not (info.isreg() and wanted(name)):
                    continue
                if info.size > _LARGEST_MEMBER:
                    raise ValueError(
                        f"file must be at most {_LARGEST_MEMBER} bytes, got {info.size} for {name} in {path}"
                    )
                if (file := tar.extractfile(info)) is not None:
                    found[name] = file.read()
    except tarfile.TarError as error:
        raise ValueError(f"archive must be a whole tar.gz, got {path}: {error}; download it again") from None
    return found
