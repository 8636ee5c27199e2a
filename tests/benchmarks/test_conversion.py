import pytest
from PIL import Image
from softfeed.benchmarks import conversion
from softfeed.benchmarks.result import from_json
from softfeed.pipelines.shards.shard_set import load


@pytest.fixture
def folder(tmp_path):
    """Two classes of two photographs."""
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(2):
            Image.effect_noise((60, 40), 90).save(tmp_path / "images" / name / f"{number}.jpg")
    return tmp_path / "images"


def test_a_set_of_holes_opens_as_a_real_one(tmp_path):
    outcome = conversion._opening(tmp_path, samples=5000, shards=7, repeats=1)
    assert (outcome["samples"], outcome["shards"], len(outcome["all_s"])) == (5000, 7, 2)
    assert len(load(tmp_path).samples) == 5000


def test_a_small_run_writes_a_result(tmp_path, folder, monkeypatch):
    opening = conversion._opening
    monkeypatch.setattr(conversion, "_opening", lambda path, *_: opening(path, 5000, 7, 1))
    output = tmp_path / "result.json"
    arguments = [str(folder), "--copies=3", "--repeats=1", "--shard-size=5", "--synthetic=300", f"--output={output}"]
    assert conversion.main([*arguments, f"--scratch={tmp_path}"]) == 0
    result = from_json(output)
    rows = {row.name: row for row in result.rates}
    assert set(rows) == {name for pair in conversion._RATIOS for name in pair}
    named = {ratio.name: ratio.median for ratio in result.ratios}
    assert len(named) == 6
    for above, below in conversion._RATIOS:
        assert named[f"{above} / {below}"] == rows[above].images_per_s[0] / rows[below].images_per_s[0]
    words = (
        f"images --copies=3 --repeats=1 --shard-size=5 --synthetic=300 --output=result.json --scratch={tmp_path.name}"
    )
    assert result.command == f"python -m softfeed.benchmarks.conversion {words}"
    facts = result.facts
    assert facts["memory"]["samples"] == 300
    assert 50 < facts["memory"]["worker_mb"] < 500


def test_the_folder_must_exist(capsys):
    assert conversion.main([".", "--output", "/nonexistent/a.json"]) == 2
    assert "output must be in a folder that exists, got /nonexistent/a.json" in capsys.readouterr().err
    assert conversion.main(["/nonexistent"]) == 2
    assert capsys.readouterr().err == "error: image folder must exist, got /nonexistent; check the path\n"
