"""Comparing results: what is flagged, and what noise is not."""

import json

import numpy as np
import pytest
from softfeed.benchmarks.comparison import cautions, compare, differences
from softfeed.benchmarks.result import from_json, to_json

from .conftest import rate, result

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed; it comes with softfeed[test]")
given, st = hypothesis.given, hypothesis.strategies


def only(old, new):
    (change,) = compare(result(old), result(new))
    return change


def test_beyond_the_spread_of_both():
    old = rate("decode", 100, 104, 96, 101, 99)
    assert only(old, rate("decode", 90, 94, 86, 91, 89)).verdict == "slower"
    assert only(old, rate("decode", 110, 114, 106, 111, 109)).verdict == "faster"
    assert only(old, rate("decode", 90, 97, 86, 91, 89)).verdict == "same"  # one repeat reaches into the old ones
    assert only(old, rate("decode", 50, 51, 52, 50, 53)).ratio == 51 / 100


@given(st.lists(st.floats(50, 150), min_size=5, max_size=5), st.lists(st.floats(50, 150), min_size=5, max_size=5))
def test_slower_one_way_is_faster_the_other_way(before, now):
    there, back = only(rate("a", *before), rate("a", *now)), only(rate("a", *now), rate("a", *before))
    assert {there.verdict, back.verdict} in ({"same"}, {"slower", "faster"})
    assert there.ratio * back.ratio == pytest.approx(1)


def test_noise_alone_is_flagged_as_rarely_as_stated():
    rng = np.random.default_rng(0)
    count = 3000
    runs = rng.normal(100, 10, (count, 2, 5))
    flagged = sum(only(rate("a", *old), rate("a", *new)).verdict != "same" for old, new in runs.tolist())
    expected = count / 126
    assert abs(flagged - expected) < 4 * expected**0.5


def test_fewer_than_three_repeats_are_not_judged():
    few, enough = rate("a", 100, 101), rate("a", 10, 11, 12)
    for old, new in ((few, enough), (enough, few), (rate("a", 100), rate("a", 1))):
        assert only(old, new).verdict == "same"
        (line,) = cautions(result(old), result(new))
        assert line.startswith("Nothing is called slower or faster: that takes 3 repeats in both runs, got ")
    assert only(rate("a", 100, 101, 102), enough).verdict == "slower"


def test_how_often_chance_alone_decides_is_said():
    three, five = rate("a", 1, 2, 3), rate("a", 1, 2, 3, 4, 5)
    assert cautions(result(three), result(three))[0].startswith("With 3 and 3 repeats about 1 of 10 contenders")
    assert cautions(result(five), result(five)) == []
    busy = rate("a", 1, 2, 3, 4, 5, others=(1.0,) * 5)
    (line,) = cautions(result(busy), result(five))
    assert line.startswith("The older run: These numbers are uncertain: other programs kept 1.0 cores busy")


def test_only_common_contenders_of_the_same_suite():
    old = result(rate("a", 1), rate("b", 1))
    assert [change.name for change in compare(old, result(rate("b", 2), rate("c", 1)))] == ["b"]
    with pytest.raises(ValueError, match="one of the same contenders, got none in common"):
        compare(old, result(rate("c", 1)))
    with pytest.raises(ValueError, match="of the suite peers, got one of steps"):
        compare(old, result(rate("a", 1), suite="peers"))


def test_what_else_differs():
    old = result(settings={"batch_size": 64, "seconds": 1})
    new = result(settings={"batch_size": 32, "seconds": 9}, machine={"cores": 4, "versions": {"torch": "3"}})
    lines = differences(old, new)
    assert "settings: batch_size was 64, is 32" in lines
    assert "versions: torch was 2.15, is 3" in lines
    assert "machine: cores was 2, is 4" in lines
    assert not any("seconds" in line for line in lines)
    assert differences(old, old) == []


def test_a_result_survives_its_file(tmp_path):
    written = result(rate("a", 1.5, 2.5, waiting=(0.1, 0.2), others=(0.0, 1.0)), facts={"x": [1]}, verdict=["w"])
    path = tmp_path / "r.json"
    path.write_text(to_json(written))
    assert from_json(path) == written
    row = json.loads(path.read_text())["rates"][0]
    assert (row["median"], row["spread"]) == (2.0, [1.5, 2.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("\xff", "no JSON"),
        ("[]", "must name a result"),
        ('{"format": "other"}', "must name a result"),
        ('{"format": "softfeed bench"}', "format_version in .* must be 1, got None; measure it again"),
        ('{"format": "softfeed bench", "format_version": 99}', "format_version in .* must be 1, got 99"),
        ('{"format": "softfeed bench", "format_version": 1, "rates": [{}]}', "must name a whole result"),
    ],
)
def test_files_that_are_no_results(tmp_path, text, message):
    path = tmp_path / "r.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=message):
        from_json(path)


@pytest.mark.parametrize("values", [[], [0.0], ["1"], [1.0, 2.0]])
def test_rates_that_cannot_be_compared(tmp_path, values):
    content = json.loads(to_json(result(rate("a", 1.5))))
    content["rates"][0]["images_per_s"] = values
    path = tmp_path / "r.json"
    path.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"images_per_s of 'a' in .* must be positive numbers, one for each repeat, got"
    ):
        from_json(path)
    path.write_text(json.dumps(content | {"settings": []}))
    with pytest.raises(ValueError, match=r"must name a whole result .*settings"):
        from_json(path)


def test_facts_are_printed_unless_a_picture_is_made_of_them():
    step = {"name": "decode", "images_per_s": 100.0, "wall_us": 9000.25, "cpu_us": 17000.0}
    facts = {
        "steps": [step],
        "gpu": {"busy_share": 0.5, "gpu_us_per_image": 1234.5},
        "peak_memory": {"host_mb": 812.5, "gpu_mb": None},
        "call_us": 2.5,
        "curves": {"threads": {"loader": [[1, 2, 3, 4]]}},
        "max_side": None,
    }
    _, printed = str(result(rate("a", 1.5), facts=facts)).split("\n\n")
    steps, *rest = printed.splitlines()
    assert steps.split() == ["decode", "+9,000.2", "us/image", "+17,000.0", "us", "CPU/image"]
    assert rest == ["gpu: busy_share 0.5, gpu_us_per_image 1,234", "peak_memory: host_mb 812.5", "call_us: 2.5"]
