"""What is looked up of a machine, on texts as a machine with a GPU has them, and on this one."""

import json
from pathlib import Path

import pytest
from softfeed.benchmarks import environment
from softfeed.pipelines import nvjpeg

MAPS = """\
7f0000000000-7f0000001000 r--p 00000000 08:01 11 /usr/lib/x86_64-linux-gnu/libc.so.6
7f0000002000-7f0000003000 r--p 00000000 08:01 12 /env/lib/python3.12/site-packages/nvidia/cu13/lib/libnvjpeg.so.13
7f0000003000-7f0000004000 r-xp 00001000 08:01 12 /env/lib/python3.12/site-packages/nvidia/cu13/lib/libnvjpeg.so.13
7f0000005000-7f0000006000 r--p 00000000 08:01 13 /usr/local/cuda 12/lib64/libnvjpeg.so.12.4.0.76
7f0000006000-7f0000007000 r--p 00000000 08:01 14 /env/lib/python3.12/site-packages/nvidia/nvimgcodec/libnvimgcodec.so.0
7f0000008000-7f0000009000 r--p 00000000 08:01 15 /env/x/site-packages/nvidia/nvimgcodec/extensions/libnvjpeg_ext.so.0.9
7f0000009000-7f000000a000 r--p 00000000 08:01 16 /env/x/site-packages/torchvision.libs/libnvjpeg.4a0b5c81.so.13
7f000000a000-7f000000b000 rw-p 00000000 00:00 0 [heap]
7f000000b000-7f000000c000 rw-p 00000000 00:00 0
"""


def test_libraries_that_decode_are_found_each_once(tmp_path):
    (tmp_path / "maps").write_text(MAPS)
    found = nvjpeg.loaded_libraries(environment._LIBRARIES, tmp_path / "maps")
    assert [environment.short(path) for path in found] == [
        "nvidia/cu13/lib/libnvjpeg.so.13",
        "nvidia/nvimgcodec/libnvimgcodec.so.0",
        "torchvision.libs/libnvjpeg.4a0b5c81.so.13",
        "/usr/local/cuda 12/lib64/libnvjpeg.so.12.4.0.76",
    ]
    asked = nvjpeg.loaded_libraries(environment._NVJPEG, tmp_path / "maps")
    assert [Path(path).name for path in asked] == [
        "libnvjpeg.so.13",
        "libnvjpeg.4a0b5c81.so.13",
        "libnvjpeg.so.12.4.0.76",
    ]


def test_a_home_folder_is_nobodys_business():
    assert environment.short(str(Path.home() / "cuda" / "libnvjpeg.so.12")) == "~/cuda/libnvjpeg.so.12"


def test_the_version_is_the_librarys_own():
    nvidia = pytest.importorskip("nvidia.cu13", reason="no wheel of nvJPEG for CUDA 13 is installed")
    (path,) = Path(next(iter(nvidia.__path__)), "lib").glob("libnvjpeg.so.*")
    found = environment.about(str(path))
    assert found["library"] == f"nvidia/cu13/lib/{path.name}"
    assert found["version"].startswith("13.")
    assert set(found) == {"library", "version", "engines", "cores_per_engine"}


def test_a_library_without_the_functions_tells_nothing(monkeypatch):
    class Old:
        def nvjpegGetProperty(self, part, value):
            return 1

    monkeypatch.setattr(environment.ctypes, "CDLL", lambda path: Old())
    assert environment.about("/lib/libnvjpeg.so.11") == {
        "library": "/lib/libnvjpeg.so.11",
        "version": None,
        "engines": None,
        "cores_per_engine": None,
    }


def test_engines_are_asked_for_and_the_handle_is_given_back(monkeypatch):
    calls = []

    class Library:
        def nvjpegGetProperty(self, part, value):
            value._obj.value = (13, 3, 2)[part]
            return 0

        def nvjpegCreateEx(self, backend, device, pinned, flags, handle):
            calls.append(("create", backend))
            return 0

        def nvjpegGetHardwareDecoderInfo(self, handle, engines, cores):
            engines._obj.value, cores._obj.value = 7, 1
            return 0

        def nvjpegDestroy(self, handle):
            calls.append(("destroy",))
            return 0

    monkeypatch.setattr(environment.ctypes, "CDLL", lambda path: Library())
    found = environment.about("/lib/libnvjpeg.so.13")
    assert (found["version"], found["engines"], found["cores_per_engine"]) == ("13.3.2", 7, 1)
    assert calls == [("create", 3), ("destroy",)]


def test_the_program_writes_what_this_machine_is(tiny_folder, tmp_path, capsys):
    output = tmp_path / "environment.json"
    assert environment.main([str(tiny_folder), "--device", "cpu", "--output", str(output)]) == 0
    found = json.loads(output.read_text())
    assert {"machine", "cuda", "gpu", "nvjpeg", "libraries", "cpu"} <= set(found)
    assert found["cpu"]["usable"] >= 1
    assert any("libdali" in path for path in found["libraries"])
    assert str(tmp_path) not in output.read_text()
    assert json.loads(capsys.readouterr().out) == found
