"""What results say of commands, and that the commands in them and in the sources are there."""

import importlib.util
import json
import re
from pathlib import Path

import pytest
import softfeed.benchmarks
from softfeed.benchmarks.recorded import command_line, without_folders

BENCHMARKS = Path(softfeed.benchmarks.__file__).parent


def test_paths_are_cut_down_to_names():
    words = ["bench", "/home/me/imagenet", "--output", "/tmp/a b.json", "--seconds", "3"]
    assert command_line(words) == "softfeed bench imagenet --output 'a b.json' --seconds 3"
    assert (
        command_line(["--output=/tmp/x/a.json", "--cold", "../b/"], "python x") == "python x --output=a.json --cold b"
    )
    assert command_line([], "python x") == "python x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No such file: '/tmp/x y/a.json'", "No such file: 'x y/a.json'"),
        ("FileNotFoundError: /tmp/softfeed-peers-a/images.beton; make it", "FileNotFoundError: images.beton; make it"),
        ("got ~/me/data, 3 images/s, 1/2", "got data, 3 images/s, 1/2"),
        ("see https://example.org/a/b", "see https://example.org/a/b"),
    ],
)
def test_messages_lose_their_folders(text, expected):
    assert without_folders(text) == expected


def test_every_command_that_is_named_exists():
    root = BENCHMARKS.parent
    sources = [path for part in ("benchmarks", "pipelines", "train", "softops") for path in (root / part).rglob("*.py")]
    texts = {path: path.read_text(encoding="utf-8") for path in sources}
    texts |= {path: json.loads(path.read_text())["command"] for path in (BENCHMARKS / "results").glob("*.json")}
    named = {name for text in texts.values() for name in re.findall(r"python -m (softfeed\.benchmarks[.\w]*)", text)}
    assert len(named) > 4
    for name in named:
        found = importlib.util.find_spec(name)
        assert found is not None, name
        assert found.submodule_search_locations is None, f"{name} is a package"
