"""Which nvJPEG DALI decodes with: the one that its decoder found, which need not be the one installed beside it."""

from __future__ import annotations

import ctypes
import re
from functools import cache
from pathlib import Path
from typing import Any

Version = tuple[int, int, int]

LIBRARY = re.compile(r"libnvjpeg\.so[.\d]*")  # a copy of somebody's own, as torchvision's, has a hash in its name
_PROPERTIES = range(3)  # of nvjpegGetProperty: MAJOR_VERSION, MINOR_VERSION, PATCH_LEVEL


@cache
def version() -> Version | None:
    """Version of the nvJPEG that DALI uses in this process; None if it finds none. Needs no GPU.

    DALI's decoder looks for the library when it is made, also one for the CPU, in `LD_LIBRARY_PATH` before the wheels.
    """
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import pipeline_def

    @pipeline_def
    def decoder() -> Any:
        return fn.decoders.image(fn.external_source(name="encoded", dtype=types.DALIDataType.UINT8, ndim=1))

    settings: dict[str, Any] = {"batch_size": 1, "num_threads": 1, "device_id": None, "set_affinity": False}
    made = decoder(**settings)
    made.build()
    found = loaded_version()
    made._shutdown()
    return found


def loaded_version(maps: Path = Path("/proc/self/maps")) -> Version | None:
    """Version of the nvJPEG that this process has loaded; of several, the oldest; None if there is none."""
    versions = [version_of(file) for file in loaded_libraries(maps=maps)]
    return min((version for version in versions if version is not None), default=None)


def loaded_libraries(name: re.Pattern[str] = LIBRARY, maps: Path = Path("/proc/self/maps")) -> list[str]:
    """Paths of libraries that this process has loaded, each once, sorted; none where that cannot be told.

    Args:
        name: What the whole of a file's name must match.
        maps: Where Linux lists what a process has loaded.
    """
    try:
        lines = maps.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return []
    files = {line.split(maxsplit=5)[-1] for line in lines if "/" in line}
    return sorted(file for file in files if name.fullmatch(Path(file).name))


def version_of(file: str) -> Version | None:
    """What a library that is loaded already says of itself; None if it says nothing."""
    try:
        get_property = ctypes.CDLL(file).nvjpegGetProperty
    except (OSError, AttributeError):
        return None
    value = ctypes.c_int()
    found = []
    for number in _PROPERTIES:
        if get_property(number, ctypes.byref(value)):
            return None
        found.append(value.value)
    major, minor, patch = found
    return major, minor, patch
