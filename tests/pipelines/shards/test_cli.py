import argparse
import io
import json
import re

import pytest
from softfeed.pipelines.shards import cli, convert
from softfeed.pipelines.shards.progress import ConversionProgress
from softfeed.pipelines.shards.shard_set import load


@pytest.fixture
def run():
    """Runs `softfeed convert` with some arguments, as the main command does."""

    def command(*arguments):
        parser = argparse.ArgumentParser(prog="softfeed")
        cli.add_parser(parser.add_subparsers())
        return cli.run(parser.parse_args(["convert", *map(str, arguments)]))

    return command


def test_converts_a_folder_and_sums_up(tmp_path, image_folder, run, capsys):
    source = image_folder(classes=3, each=4)
    (source / "class1" / "002.png").write_bytes(b"hello, world")
    assert run(source, tmp_path / "set", "--workers", 1) == 0
    shown = capsys.readouterr()
    lines = dict(line.split(maxsplit=1) for line in shown.out.splitlines())
    assert lines["samples"] == "11 of 3 classes"
    assert lines["largest"] == "16 pixels high, 24 pixels wide"
    assert lines["shards"].startswith("1, ")
    assert "left out: class1/002.png: not an image" in shown.out
    assert re.fullmatch(r"converting: 12 of 12 images, [\d,]+ images/s, [\d.]+ MB/s, 1 bad\n", shown.err)


def test_every_option_reaches_the_set(tmp_path, parquet_file, encoded, run):
    for split, count in (("train", 9), ("test", 3)):
        path = parquet_file(
            f"{split}-00000-of-00001.parquet",
            images=[encoded(seed, size=(20, 12)) for seed in range(count)],
            labels=[0] * count,
            columns=("picture", "kind"),
        )
    source = (path.parent, "--source-format=parquet", "--split=train", "--image-column=picture", "--label-column=kind")
    run(*source, tmp_path / "set", "--raw", "12x20", "--shard-size=4", "--seed=3", "--no-shuffle", "--max-bad=0")
    made = load(tmp_path / "set").manifest
    assert (made.num_samples, made.raw_shape, len(made.shards)) == (9, (12, 20, 3), 3)
    created = json.loads((tmp_path / "set" / "dataset.json").read_text())["created"]
    assert created["seed"] == 3
    expected = {"raw": [12, 20], "shard_samples": 4, "seed": 3, "shuffle": False, "check": True, "format": "webdataset"}
    expected |= {"max_side": None, "quality": None, "subsampling": None, "normalize": False}
    assert created["options"] == expected
    encoding = ("--format=recordio", "--max-side=9", "--quality=80", "--subsampling=444", "--normalize")
    run(*source, tmp_path / "set", *encoding, "--overwrite")
    options = load(tmp_path / "set").manifest.created["options"]
    expected |= {"max_side": 9, "quality": 80, "subsampling": "444", "normalize": True, "format": "recordio"}
    assert options == expected | {"raw": False, "shard_samples": 64, "seed": 0, "shuffle": True}
    run(*source, tmp_path / "set", "--no-check", "--overwrite")
    assert load(tmp_path / "set").manifest.created["options"]["check"] is False


@pytest.mark.parametrize(("text", "size"), [("--raw", True), ("--raw=32", 32), ("--raw=3x4", (3, 4))])
def test_raw_takes_a_size_or_none(text, size):
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    assert parser.parse_args(["convert", "a", "b", text]).raw == size


@pytest.mark.parametrize("size", ["0", "3x", "1x2x3", "big", "-4"])
def test_raw_refuses_other_sizes(size, capsys):
    parser = argparse.ArgumentParser()
    cli.add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(["convert", "a", "b", f"--raw={size}"])
    assert f"must be SIZE or HEIGHTxWIDTH in pixels, got '{size}'" in capsys.readouterr().err


def test_user_errors_are_one_line(tmp_path, image_folder, run, capsys):
    for arguments, error in {
        (tmp_path / "nowhere", tmp_path / "set"): FileNotFoundError,
        (image_folder(), tmp_path / "set", "--workers=0"): ValueError,
        (tmp_path / "images", tmp_path / "set", "--split=train"): ValueError,
    }.items():
        with pytest.raises(error) as caught:
            run(*arguments)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()
    assert capsys.readouterr() == ("", "")


def test_a_resumed_conversion_says_so(tmp_path, image_folder, run, capsys):
    source = image_folder(classes=2, each=5)
    for name in ("001.png", "003.png"):
        (source / "class0" / name).write_bytes(b"hello, world")
    with pytest.raises(ValueError, match="got 2 in the first 10"):
        run(source, tmp_path / "set")
    run(source, tmp_path / "set", "--max-bad=2")
    assert "10 images were done before" in capsys.readouterr().out


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_with_rate_and_bad_images():
    stream = _Terminal()
    progress = ConversionProgress(stream)
    progress("reading", 1, 1, 0, 0)
    for done in (0, 10, 20, 30):
        progress("converting", done, 30, 2, done * 1000)
    progress.close()
    last = stream.getvalue().rpartition("\r")[2]
    assert "converting: 100%" in last
    assert "30/30" in last
    assert re.search(r"images/s, [\d,.]+ MB/s, 2 bad", last)


def test_a_log_gets_few_lines():
    stream = io.StringIO()
    progress = ConversionProgress(stream)
    for done in range(1001):
        progress("converting", done, 1000, 0, done)
    (line,) = stream.getvalue().splitlines()
    assert line.startswith("converting: 1,000 of 1,000 images, ")


def test_an_unchecked_conversion_does_not_claim_that_nothing_is_bad(tmp_path, image_folder, run, capsys):
    source = image_folder(classes=2, each=2, kind="JPEG", size=(90, 60))
    run(source, tmp_path / "checked", "--workers", 1)
    assert "bad images  none\n" in capsys.readouterr().out
    path = source / "class1" / "000.png"
    path.write_bytes(path.read_bytes()[:-200])
    run(source, tmp_path / "unchecked", "--workers", 1, "--no-check")
    assert "bad images  none by their headers, the rest was not checked\n" in capsys.readouterr().out


class _Clock:
    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


def _lines_of_a_log(monkeypatch, calls):
    """Plain lines for calls of (seconds, done, written), of 10,000 images."""
    clock, stream = _Clock(), io.StringIO()
    monkeypatch.setattr("softfeed.pipelines.shards.progress.time", clock)
    progress = ConversionProgress(stream)
    for clock.now, done, written in calls:
        progress("converting", done, 10_000, 3, written)
    return stream.getvalue().splitlines()


def test_a_log_tells_rates_and_the_time_left(monkeypatch):
    lines = _lines_of_a_log(monkeypatch, [(0, 0, 0), (4, 1000, 10**8), (12, 2400, 3 * 10**8), (50, 10_000, 10**9)])
    assert lines == [
        "converting: 2,400 of 10,000 images, 200 images/s, 25.0 MB/s, 00:38 left, 3 bad",
        "converting: 10,000 of 10,000 images, 200 images/s, 20.0 MB/s, 3 bad",
    ]


def test_rates_leave_out_what_an_earlier_run_did(monkeypatch):
    lines = _lines_of_a_log(monkeypatch, [(0, 0, 0), (1, 4000, 0), (2, 8000, 0), (12, 9000, 10**8)])
    assert lines == ["converting: 9,000 of 10,000 images, 100 images/s, 10.0 MB/s, 00:10 left, 3 bad"]


def test_a_log_hears_of_every_five_seconds(monkeypatch):
    lines = _lines_of_a_log(monkeypatch, [(second, 100 * second, 1) for second in range(16)])
    assert [line.split(" images")[0] for line in lines] == [
        f"converting: {done:,} of 10,000" for done in (500, 1000, 1500)
    ]


def test_problems_are_counted_in_words():
    stream = io.StringIO()
    progress = ConversionProgress(stream)
    for bad in (0, 1, 2):
        progress("verifying", 10, 10, bad, 5)
    assert [line.rpartition(", ")[2] for line in stream.getvalue().splitlines()] == [
        "0 problems",
        "1 problem",
        "2 problems",
    ]


def test_ctrl_c_says_how_much_is_done_and_that_the_same_command_goes_on(tmp_path, image_folder, run, monkeypatch):
    source = image_folder(classes=2, each=5)
    real, done = convert.write_shard, []

    def interrupted(job):
        if done:
            raise KeyboardInterrupt
        done.append(job)
        return real(job)

    words = (source, tmp_path / "set", "--workers=1", "--shard-size=4")
    with monkeypatch.context() as patch:
        patch.setattr(convert, "write_shard", interrupted)
        with pytest.raises(KeyboardInterrupt) as caught:
            run(*words)
    message = "interrupted while converting, at least 4 of 10 images done; the same command again goes on"
    assert str(caught.value) == message
    assert run(*words) == 0
    assert load(tmp_path / "set").manifest.num_samples == 10


def test_ctrl_c_before_anything_has_begun_promises_nothing(tmp_path, image_folder, run, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "open_source", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(image_folder(), tmp_path / "set")
    assert str(caught.value) == ""


def test_a_share_for_validation_makes_two_sets(tmp_path, image_folder, run, capsys):
    run(image_folder(classes=2, each=10), tmp_path / "sets", "--val-share=0.3", "--workers=1")
    sizes = {part: load(tmp_path / "sets" / part).manifest.num_samples for part in ("train", "val")}
    assert sizes == {"train": 14, "val": 6}
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line.startswith("samples")] == [
        "samples     14 of 2 classes",
        "samples     6 of 2 classes",
    ]


def test_the_second_set_of_a_split_gets_a_bar_of_its_own():
    stream = _Terminal()
    progress = ConversionProgress(stream)
    for total in (90, 10):
        for done in (0, total // 2, total):
            progress("converting", done, total, 0, done)
    progress.close()
    first, last = [line.rpartition("\r")[2] for line in stream.getvalue().strip().split("\n")]
    assert "90/90" in first
    assert "10/10" in last


def test_places_that_cannot_be_written_are_refused(tmp_path, image_folder, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = image_folder()
    for options in ((), ("--val-share=0.5",)):  # nobody, not even root, may create folders in /proc
        with pytest.raises(OSError, match=r"destination must be writable, got /proc/y \(.*\); name another folder"):
            run(source, "/proc/y", "--workers=1", *options)
    with pytest.raises(ValueError, match="DEST must be a folder of this machine, got s3://a/b; softfeed copy takes"):
        run(source, "s3://a/b", "--workers=1")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]
    with pytest.raises(ValueError, match="--workers must be left out with --dask, got 0"):
        run(source, tmp_path / "set", "--dask=tcp://nowhere:1", "--workers=0")
