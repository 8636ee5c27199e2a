"""Which nvJPEG is loaded: asked of the library itself, on a machine without a GPU too."""

import contextlib
import ctypes
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from softfeed.pipelines import nvjpeg

MAPS = """\
7f0000000000-7f0000001000 r--p 00000000 08:01 11 {}
7f0000001000-7f0000002000 r-xp 00001000 08:01 11 {}
7f0000003000-7f0000004000 rw-p 00000000 00:00 0
7f0000005000-7f0000006000 r--p 00000000 08:01 12 {}
"""
TORCHVISIONS = "/site/torchvision.libs/libnvjpeg.4a0b5c81.so.13"


class FakeLibrary:
    """Answers as nvJPEG does, from the version in its file's name."""

    def __init__(self, path):
        if "missing" in path:
            raise OSError(path)
        self._version = [int(part) for part in re.findall(r"\d+", Path(path).name)]
        if "silent" not in path:
            self.nvjpegGetProperty = self._property

    def _property(self, number, value):
        ctypes.cast(value, ctypes.POINTER(ctypes.c_int))[0] = self._version[number] if self._version else 0
        return 0 if self._version else 1  # a status of success, or not


@pytest.mark.parametrize(
    ("files", "version"),
    [
        (["/cuda/lib64/libnvjpeg.so.13.2.1.44"] * 3, (13, 2, 1)),
        (["/with a space/libnvjpeg.so.12.4.0.76", "/libc.so.6", "/libc.so.6"], (12, 4, 0)),
        (["/b/libnvjpeg.so.13.3.2", "/a/libnvjpeg.so.13.3.2", "/c/libnvjpeg.so.13.0.1"], (13, 0, 1)),
        ([TORCHVISIONS, "/site/libnvjpeg2k.so.0", "/site/libnvjpeg_ext.so.0.9.0"], None),
        (["/missing/libnvjpeg.so.13.3.2", "/silent/libnvjpeg.so.13.3.2", "/libnvjpeg.so"], None),
        (["/replaced/libnvjpeg.so.13.3.2 (deleted)"] * 3, None),
    ],
    ids=["one", "one of CUDA 12", "the oldest of several", "others' copies", "says nothing", "deleted"],
)
def test_the_library_that_is_loaded_says_what_it_is(tmp_path, monkeypatch, files, version):
    monkeypatch.setattr(ctypes, "CDLL", FakeLibrary)
    (tmp_path / "maps").write_text(MAPS.format(*files))
    assert nvjpeg.loaded_version(tmp_path / "maps") == version


def test_where_nothing_can_be_asked_nothing_is_said(tmp_path):
    assert nvjpeg.loaded_version(tmp_path / "maps") is None


def test_dali_loads_the_one_that_is_installed_also_without_a_gpu():
    """In a process of its own, as a decoder that another test made has loaded it already."""
    code = (
        "from softfeed.pipelines import nvjpeg; before = nvjpeg.loaded_version(); "
        "print(before, nvjpeg.version(), nvjpeg.loaded_version() == nvjpeg.version())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert re.fullmatch(r"None \(\d+, \d+, \d+\) True\n", said), said
    with contextlib.suppress(metadata.PackageNotFoundError):
        installed = metadata.version("nvidia-nvjpeg")
        if "LD_LIBRARY_PATH" not in os.environ:  # which may name another one
            assert said == f"None ({', '.join(installed.split('.')[:3])}) True\n"
