"""The folder that a conversion writes: taking it over safely, and finding what an earlier run left there.

While a conversion runs, `DEST/.partial` holds its plan, the records of finished shards and temporary files. The plan
says what the bytes of the set depend on; a later run with the same plan goes on where the earlier one stopped.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import atomic
from .containers.formats import CONTAINERS
from .manifest import MANIFEST_FILE, PARTIAL_FOLDER

BAD_FILE = "bad.json"
ODD_FILE = "odd.json"
_SHARD = re.compile(rf"shard-\d{{6,}}({'|'.join(re.escape(container.suffix) for container in CONTAINERS.values())})")
_OURS = re.compile(
    rf"({_SHARD.pattern}|shard-\d{{6,}}\.idx|(samples\.npy|shards\.idx|names\.txt|(dataset|bad|odd)\.json))(\.tmp)?"
)
_PLAN_FILE = "plan.json"


@contextmanager
def claimed(dest: Path, *, source: Path, overwrite: bool) -> Iterator[Path]:
    """Create or take over the folder of a shard set, and keep other conversions out of it.

    Args:
        dest: the folder.
        source: what is converted; must neither be nor contain `dest`, nor lie in it.
        overwrite: take over a finished shard set too.

    Yields:
        the work folder, `dest/.partial`.

    Raises:
        FileExistsError: if `dest` is a file, a finished set (without `overwrite`), or holds files of others.
        ValueError: if `dest` lies in `source`, or `source` in `dest`.
        BlockingIOError: if another conversion is writing there.
        OSError: if it cannot be made.
    """
    require_apart(source, dest)
    require_free(dest, overwrite=overwrite)
    work = dest / PARTIAL_FOLDER
    make_folder(work, dest)
    with locked(work, dest):
        if (dest / MANIFEST_FILE).exists():
            if not overwrite:  # another conversion has finished it since it was looked for
                shutil.rmtree(work)
                raise _finished(dest)
            _empty(work)  # whoever overwrites a set wants every byte written anew, not its records trusted
            (dest / MANIFEST_FILE).unlink()  # from here on this is an unfinished set
        yield work


def require_apart(source: Path, dest: Path) -> None:
    """Raise ValueError if writing to `dest` could change the source; see `claimed`."""
    there, here = source.resolve(), dest.resolve()
    if there in (here, *here.parents):
        raise ValueError(f"destination must not lie in the source {source}, got {dest}; name another folder")
    if here in there.parents:
        raise ValueError(f"source must not lie in the destination {dest}, got {source}; name another folder")


def make_folder(folder: Path, dest: Path) -> None:
    """Make a folder of the destination. Raises OSError that names the destination if that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"destination must be writable, got {dest} ({reason}); name another folder") from error


@contextmanager
def locked(folder: Path, dest: Path) -> Iterator[None]:
    """Hold a folder of the destination; the lock ends with this process, however it ends.

    Raises:
        BlockingIOError: if another process holds it, or has just removed it.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(descriptor), folder.stat()):
                raise FileNotFoundError
        except (BlockingIOError, FileNotFoundError):
            raise BlockingIOError(
                f"destination must have one writer, got another softfeed convert at work in {dest}; wait for it to end"
            ) from None
        yield
    finally:
        os.close(descriptor)


def require_free(dest: Path, *, overwrite: bool) -> None:
    """Raise FileExistsError unless a conversion may write to `dest`; see `claimed`."""
    if dest.exists() and not dest.is_dir():
        raise FileExistsError(f"destination must be a folder, got the file {dest}")
    if not dest.is_dir():
        return
    if (dest / MANIFEST_FILE).exists():
        if '"softfeed"' not in (dest / MANIFEST_FILE).read_text(encoding="utf-8", errors="replace"):
            raise FileExistsError(
                f"destination must be new or empty, got a {MANIFEST_FILE} of something else in {dest}; "
                "name another folder"
            )
        if not overwrite:
            _sweep(dest / PARTIAL_FOLDER)
            raise _finished(dest)
        return
    if not (dest / PARTIAL_FOLDER).is_dir() and (entries := sorted(dest.iterdir())):
        raise FileExistsError(
            f"destination must be new or empty, got {len(entries)} entries in {dest} (first: {entries[0].name}); "
            "name another folder"
        )


def _finished(dest: Path) -> FileExistsError:
    return FileExistsError(
        f"destination must be new or empty, got a finished shard set in {dest}; --overwrite replaces it"
    )


def _sweep(work: Path) -> None:
    """Remove the work folder of a finished set, left by a run that was killed just before it did so itself."""
    if not work.is_dir():
        return
    with locked(work, work.parent):
        shutil.rmtree(work)


def resume(work: Path, plan: dict[str, Any], *, overwrite: bool) -> bool:
    """Whether an earlier run had the same plan; if not, whatever it left is removed and the plan noted.

    Raises:
        FileExistsError: if it wrote shards of another source or with other options, and `overwrite` is False. Where
            only the images have changed since, their owner wants them converted as they are now.
    """
    plan_file = work / _PLAN_FILE
    earlier = json.loads(plan_file.read_text(encoding="utf-8")) if plan_file.exists() else {}
    if {**earlier, "origin": None} == {**plan, "origin": None}:
        for attempt in work.glob("shard-*.tmp"):  # of workers that were killed
            attempt.unlink(missing_ok=True)
        return True  # also for a source that was moved
    shards = sum(_SHARD.fullmatch(entry.name) is not None for entry in work.parent.iterdir())
    other = [key for key in ("origin", "options") if earlier and earlier.get(key) != plan[key]]
    if shards and other and not overwrite:
        raise FileExistsError(
            f"destination must be new, empty or an unfinished conversion of the same images with the same options, "
            f"got {shards} shard(s) of another in {work.parent}; run that command again to finish it, name another "
            "folder, or discard them with --overwrite"
        )
    _empty(work)
    for entry in work.parent.iterdir():
        if _OURS.fullmatch(entry.name):
            entry.unlink()
    atomic.write_bytes(plan_file, json.dumps(plan, indent=1, sort_keys=True).encode())
    return False


def _empty(work: Path) -> None:
    for entry in work.iterdir():
        entry.unlink()


def release(work: Path) -> None:
    """Remove the work folder; the set is finished."""
    shutil.rmtree(work)
    atomic.flush_folder(work.parent)
