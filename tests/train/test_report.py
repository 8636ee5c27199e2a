"""The demonstration's report: complete in itself, and true to the runs."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from softfeed.train import digits, report
from softfeed.train.cli import main
from softfeed.train.comparison import RECIPES, Comparison
from softfeed.train.distributed import Process
from softfeed.train.figures import pooled
from softfeed.train.metrics import ReliabilityBin


@pytest.fixture(scope="module")
def comparison(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return Comparison(digits.prepare(folder, lambda text: None), folder / "runs", 1, Process.current())


@pytest.fixture(scope="module")
def runs(comparison):
    return [comparison.run(recipe, 0) for recipe in RECIPES]


class _Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self):
        super().__init__()
        self.open, self.sources, self.words = [], [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)
        else:
            assert "url(" not in data
            assert "@import" not in data


@pytest.fixture(scope="module")
def page(comparison, runs):
    page = _Page()
    page.feed(report.render(comparison, runs, output=comparison.folder.parent))
    page.close()
    return page


def test_page_is_well_formed_and_self_contained(page):
    assert page.open == []
    assert len(page.sources) == 2 * report.TILES + 2 + 4
    for source in page.sources:
        kind, _, content = source.partition(",")
        assert kind == "data:image/png;base64"
        Image.open(io.BytesIO(base64.b64decode(content))).load()


def test_page_shows_the_numbers_of_the_runs(page, runs):
    text = re.sub(r"\s+", " ", " ".join(page.words))
    for run in runs:
        assert f"{run.clean.top1:.1%}" in text
        assert f"{run.occluded.ece:.3f}" in text
        assert repr(RECIPES[run.recipe]) in text
    assert "One seed (0), 1 epoch, 360 test digits" in text
    assert "One seed says nothing about chance" in text


def test_examples_are_the_same_digits_with_their_confidence(comparison):
    hard, soft = (report.examples(comparison, recipe, seed=0) for recipe in ("hard", "soft"))
    assert [tile.label for tile in hard] == [tile.label for tile in soft]
    assert {tile.confidence for tile in hard} == {1.0}
    grey = round(255 * digits.NORMALIZE.mean[0])
    shares = np.array([np.mean(np.asarray(Image.open(io.BytesIO(tile.png)))[..., 0] == grey) for tile in soft])
    # Eq. 7 with k = 2 from the grey pixels, counted; a digit may have a few of that grey itself.
    expected = 0.1 + 0.9 * (1 - shares**2)
    np.testing.assert_allclose([tile.confidence for tile in soft], expected, atol=0.04)
    assert shares.max() > 0.5


def test_commands_are_ones_that_softfeed_knows(comparison, capsys):
    lines = [line for line in report.commands(comparison.folder.parent, seed=0) if line.startswith("softfeed")]
    assert len(lines) == 5
    for line in lines[1:]:
        # The folders are examples, so the complaint must be about the first of them and not about the words.
        command = line.split()[1:]
        assert main(command) == 2
        assert re.search(r"got .*(photos|shards|run/best\.pt)", capsys.readouterr().err)


def test_pooled_bins_are_those_of_all_samples_together():
    first, second = ReliabilityBin(0.8, 0.9, 10, 0.82, 0.9), ReliabilityBin(0.8, 0.9, 30, 0.86, 0.7)
    (both,) = pooled([[first], [second]])
    assert (both.lower, both.upper, both.count) == (0.8, 0.9, 40)
    assert both.confidence == pytest.approx(0.85)
    assert both.accuracy == pytest.approx(0.75)
    assert pooled([[ReliabilityBin(0, 0.1, 0, 0, 0)]] * 2) == [ReliabilityBin(0, 0.1, 0, 0, 0)]
