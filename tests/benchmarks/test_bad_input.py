"""Bad input to a benchmark is one line and exit status 2, not a traceback."""

import pytest
from PIL import Image
from softfeed.benchmarks import alternatives, geometry, measurement, readme_picture
from softfeed.benchmarks.result import from_json


@pytest.fixture
def folder(tmp_path):
    """One class with one image, deeper than usual."""
    path = tmp_path / "images" / "cat" / "deep" / "1.png"
    path.parent.mkdir(parents=True)
    Image.new("RGB", (30, 30)).save(path)
    return tmp_path / "images"


def line(capsys, main, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    return captured.err


def test_the_picture_needs_two_classes_of_images_and_somewhere_to_go(tmp_path, folder, capsys):
    out = tmp_path / "out.png"
    main = readme_picture.main
    assert "image folder must exist, got /nonexistent" in line(capsys, main, out, "/nonexistent")
    assert "image_folder must have two classes, got 1 in" in line(capsys, main, out, folder)
    (folder / "dog").mkdir()
    (folder / "dog" / "1.png").write_bytes(b"not an image")
    assert "cannot identify image file" in line(capsys, main, out, folder)
    Image.new("RGB", (30, 30)).save(folder / "dog" / "1.png")
    assert "No such file or directory" in line(capsys, main, tmp_path / "nowhere" / "out.png", folder)
    assert not out.exists()


@pytest.mark.parametrize("program", [alternatives, geometry])
def test_programs_without_data(program, capsys):
    assert line(capsys, program.main, "--repeats", "0") == "error: repeats must be at least 1, got 0\n"
    assert "output must be in a folder that exists" in line(capsys, program.main, "--output", "/nonexistent/a.json")
    assert "output must be writable, got /proc, which" in line(capsys, program.main, "--output", "/proc/a.json")


def test_the_geometry_is_recorded_with_its_options(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(measurement, "_WARM_BATCHES", 1)
    output = tmp_path / "geometry.json"
    options = ["--seconds", "0.001", "--repeats", "1", "--threads", "1"]
    assert geometry.main([*options, "--output", str(output)]) == 0
    command = " ".join(["python -m softfeed.benchmarks.geometry", *options, "--output geometry.json"])
    assert from_json(output).command == command
    printed = capsys.readouterr().out
    assert "numpy, batch 64 " in printed
    assert "us_per_image" not in printed
