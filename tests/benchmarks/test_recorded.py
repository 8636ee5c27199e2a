"""The figures in README.md are those that are recorded, as exactly as they are printed."""

import re
from pathlib import Path

import pytest
from softfeed.benchmarks.result import from_json

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text()

# What README calls the contenders of `--peers`, and the ratios of `--suite operations`.
PEERS = {
    "**softfeed, soft crop**": "softfeed, soft crop",
    "softfeed, RandomResizedCrop": "softfeed, hard crop",
    "softfeed, full recipe (crop, flip, occlusion, mollification), shard set": "softfeed, full recipe, shard set",
    "DALI's ImageNet example": "DALI example graph",
    "torchvision, tensors": "torchvision, tensors",
    "FFCV (its own encoding)": "FFCV",
    "timm": "timm",
    "torchvision, Pillow, the same soft crop": "torchvision, Pillow, soft crop",
    "torchvision, Pillow": "torchvision, Pillow",
    "webdataset": "webdataset",
    "SPDL": "SPDL",
    "decoding whole images with libjpeg-turbo and nothing else": "decoding whole images and nothing else",
}
RATIOS = {
    "soft crop to hard RandomResizedCrop": "soft crop / hard crop",
    "soft crop with mixup to the soft crop": "soft crop, mixup / soft crop",
    "soft crop with CutMix to the soft crop": "soft crop, CutMix / soft crop",
    "soft crop with mosaic to the soft crop": "soft crop, mosaic / soft crop",
    "soft crop with mollification to the soft crop": "soft crop, mollification / soft crop",
    "full recipe to the soft crop": "full / soft crop",
    "full recipe with TrivialAugment to the soft crop": "everything / soft crop",
    "two views, per view, to one": "soft crop, two views / soft crop",
}


def rows(first):
    """Cells of the table of README whose first row of figures begins with some words, by their first cell."""
    begin = README.index(f"| {first} |")
    table = README[begin:].partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {name: figures for name, *figures in cells}


def test_other_loaders():
    table = rows(next(iter(PEERS)))
    assert table.keys() == PEERS.keys()
    for column, file in enumerate(("peers", "peers-500")):
        rates = {rate.name: rate for rate in from_json(RESULTS / f"{file}-cpu-2-cores.json").rates}
        for name, contender in PEERS.items():
            assert table[name][column].strip("*") == f"{rates[contender].median:,.0f}", f"{name} in {file}"


def test_what_steps_cost():
    ratios = {ratio.name: ratio for ratio in from_json(RESULTS / "operations-cpu-2-cores.json").ratios}
    table = rows(next(iter(RATIOS)))
    assert table.keys() == RATIOS.keys()
    for name, (figure,) in table.items():
        ratio = ratios[RATIOS[name]]
        assert figure == f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})", name


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (
            r"Converting with `--no-check` does (\S+) \((\S+) to (\S+)\) of",
            "softfeed --no-check, 1 worker / webdataset ShardWriter, per CPU second",
        ),
        (r"and (\S+) of them per second;", "softfeed --no-check, 1 worker / webdataset ShardWriter"),
        (r"two workers convert (\S+) times", "softfeed, 2 workers / softfeed, 1 worker"),
        (r"and (\S+) times with `--no-check`", "softfeed --no-check, 2 workers / softfeed --no-check, 1 worker"),
    ],
)
def test_conversion(words, name):
    figures = re.search(words.replace(" ", r"\s+"), README).groups()
    (ratio,) = [one for one in from_json(RESULTS / "conversion-cpu-2-cores.json").ratios if one.name == name]
    recorded = (ratio.median, ratio.low, ratio.high)[: len(figures)]
    assert figures == tuple(f"{figure:.2f}" for figure in recorded)
