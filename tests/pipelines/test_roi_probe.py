"""The trial in a child process: children that really die, verdicts that are kept, and what a user is told."""

import json
import os
import stat
import sys

import pytest
import torch
from softfeed.pipelines import Loader, Recipe, roi_probe
from softfeed.pipelines.roi_probe import Verdict, remembered_verdict, tried

STARTED = "print('whole images decoded', flush=True);"


def python(code):
    return [sys.executable, "-c", code]


CRASH = python(STARTED + "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
FAIL = python(STARTED + "raise RuntimeError('error #8')")
WRONG = python(STARTED + "import sys; print('a part differs by 90 of 255', file=sys.stderr); sys.exit(3)")
EARLY = python("raise MemoryError('no memory left')")
SUCCEED = python(STARTED)


@pytest.mark.parametrize(
    ("command", "verdict"),
    [
        (SUCCEED, Verdict(works=True, reason="a trial succeeded")),
        (CRASH, Verdict(works=False, reason="a trial was ended by SIGSEGV")),
        (FAIL, Verdict(works=False, reason="a trial failed with 'RuntimeError: error #8'")),
        (WRONG, Verdict(works=False, reason="a trial failed with 'a part differs by 90 of 255'")),
        (EARLY, Verdict(works=False, reason="a trial failed with 'MemoryError: no memory left'", lasting=False)),
    ],
    ids=["succeeds", "crashes", "fails", "wrong pixels", "fails early"],
)
def test_the_end_of_a_trial_is_judged(command, verdict):
    assert tried(command) == verdict


def test_a_trial_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(roi_probe, "_SECONDS", 0.5)
    assert tried(python("import time; time.sleep(60)")) == Verdict(
        works=False, reason="a trial did not end in 0.5 s", lasting=False
    )


def test_a_verdict_is_kept_for_its_machine(tmp_path):
    cache = tmp_path / "new" / "folder" / "verdicts.json"
    crashed = remembered_verdict(cache, "one GPU", CRASH)
    assert not crashed.works
    assert remembered_verdict(cache, "another GPU", SUCCEED).works
    # now the file answers, and no child is started
    assert remembered_verdict(cache, "one GPU", ["/no/such/command"]) == crashed
    assert remembered_verdict(cache, "another GPU", ["/no/such/command"]).works
    assert list(cache.parent.iterdir()) == [cache]


def test_what_may_be_otherwise_next_time_is_not_kept(tmp_path):
    cache = tmp_path / "verdicts.json"
    assert not remembered_verdict(cache, "GPU", EARLY).works
    assert remembered_verdict(cache, "GPU", SUCCEED).works


@pytest.mark.parametrize("content", ["", "[]", "{", '{"GPU": 1}', '{"GPU": {"works": true}}'])
def test_a_broken_file_of_verdicts_is_written_anew(tmp_path, content):
    cache = tmp_path / "verdicts.json"
    cache.write_text(content)
    assert remembered_verdict(cache, "GPU", SUCCEED).works
    assert json.loads(cache.read_text())["GPU"]["works"]


def test_without_a_place_to_keep_it_the_verdict_still_counts(tmp_path):
    (tmp_path / "file").write_text("")
    assert remembered_verdict(tmp_path / "file" / "verdicts.json", "GPU", SUCCEED).works
    if os.geteuid():
        tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
        assert remembered_verdict(tmp_path / "verdicts.json", "GPU", SUCCEED).works


def test_where_parts_do_not_decode_the_user_is_told_once_and_whole_images_are(tmp_path, monkeypatch):
    from softfeed.pipelines.decoder import decoder_for
    from softfeed.pipelines.sources import open_source

    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA Test")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: type("P", (), {"total_memory": 1 << 30}))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(roi_probe.sys, "executable", str(_dying(tmp_path)))
    from PIL import Image

    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / "0.png")
    source, device = open_source(tmp_path / "data"), torch.device("cuda", 0)
    expected = "does not work on NVIDIA Test: a trial was ended by SIGSEGV; whole images are decoded"
    with pytest.warns(RuntimeWarning, match=expected):
        decoder = decoder_for(source, device, 8, hw_decoder_load=0.65, roi_decode=None)
    assert not decoder.roi
    assert decoder_for(source, device, 8, hw_decoder_load=0.65, roi_decode=True).roi  # no trial, no warning
    (kept,) = json.loads((tmp_path / "cache" / "softfeed" / "roi-decode.json").read_text())
    assert kept.startswith("NVIDIA Test, driver ")
    assert "nvidia-dali" in kept
    assert "nvidia-nvimgcodec" in kept


def _dying(folder):
    """A program that ends as the trial does where the decoder crashes."""
    program = folder / "dying"
    program.write_text("#!/bin/sh\necho whole images decoded\nkill -SEGV $$\n")
    program.chmod(0o755)
    return program


def test_the_trial_itself_passes_on_the_cpu(capsys):
    assert roi_probe.main("cpu", rounds=1, batch_size=16) == 0
    assert capsys.readouterr().out == "whole images decoded\n"


def test_the_trial_itself_sees_wrong_pixels(capsys, monkeypatch):
    decoded = roi_probe._decoded
    monkeypatch.setattr(
        roi_probe, "_decoded", lambda *args, roi: [255 - part if roi else part for part in decoded(*args, roi=roi)]
    )
    assert roi_probe.main("cpu", rounds=1, batch_size=4) == 3
    assert "a part of an image differs by" in capsys.readouterr().err


def test_on_the_cpu_nothing_is_tried(white_folder, monkeypatch):
    monkeypatch.setattr(roi_probe, "tried", lambda command: pytest.fail("a trial was made"))
    with Loader(white_folder((8, 8), (8, 8)), Recipe(), 2, 8, device="cpu") as loader:
        assert loader._options.decoder.roi


@pytest.mark.gpu
def test_the_trial_on_this_gpu_ends_and_is_kept(tmp_path, monkeypatch):
    """Whichever way it ends, this process goes on, and knows."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = [sys.executable, "-m", "softfeed.pipelines.roi_probe", "cuda:0"]
    verdict = remembered_verdict(tmp_path / "verdicts.json", "this", command)
    assert verdict.lasting, verdict.reason
    assert remembered_verdict(tmp_path / "verdicts.json", "this", ["/no/such/command"]) == verdict
