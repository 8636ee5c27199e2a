"""CPU cores: how many this process may use, and its share of them among the ranks of a machine."""

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_PROCESS = Path("/proc/self")
# What holds the CPU time that a control group may use in a period, and the period: in version 2, and in version 1.
_LIMITS = (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
_NO_LIMIT = ("max", "-1")


def available() -> int:
    """Cores that this process may run on, but no more than its quota of CPU time fills, rounded up.

    `docker --cpus` and CPU limits of Kubernetes set a quota, not which cores: threads on all of them use it up early in
    every period, and then all stand still.
    """
    cores, limit = len(os.sched_getaffinity(0)), quota()
    return cores if limit is None else max(1, min(cores, math.ceil(limit)))


def share() -> int:
    """Cores for this process, >= 1, when the ranks that torchrun started on this machine share them evenly."""
    return max(1, available() // local_world_size())


def local_world_size() -> int:
    """How many processes of the run share this machine; 1 without torchrun."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def quota(process: Path = _PROCESS) -> float | None:
    """Cores that the CPU time allowed to a process is worth; None without a limit.

    The tightest limit of its control group and of those around that, as far as they can be seen: in a container, those
    outside of it cannot.

    Args:
        process: Its folder in /proc.
    """
    limits = [_limit(folder) for folder in _control_groups(process)]
    return min((limit for limit in limits if limit is not None), default=None)


def _limit(folder: Path) -> float | None:
    for names in _LIMITS:
        with suppress(OSError):
            allowed, period = " ".join((folder / name).read_text(encoding="ascii") for name in names).split()
            return None if allowed in _NO_LIMIT else int(allowed) / int(period)
    return None


def _control_groups(process: Path) -> Iterator[Path]:
    """Folders that may limit the CPU time of a process: from where its control groups are mounted down to its own."""
    try:
        groups = (process / "cgroup").read_text(encoding="utf-8").splitlines()
        mounts = (process / "mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    own: dict[str, str] = {}
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            own["cgroup2"] = path
        elif "cpu" in controllers.split(","):
            own["cgroup"] = path
    for line in mounts:
        mount, _, system = line.partition(" - ")
        kind, *_, options = system.split(" ")
        if kind not in own or (kind == "cgroup" and "cpu" not in options.split(",")):
            continue
        root, point = mount.split(" ")[3:5]
        folder, group = Path(point), PurePosixPath(own[kind])
        yield folder
        for part in group.relative_to(root).parts if group.is_relative_to(root) else ():
            folder /= part
            yield folder
