"""The trial in a child process: children that really die, verdicts that are kept, and what a user is told."""

import io
import json
import os
import re
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from softfeed.pipelines import Loader, Recipe, nvjpeg, roi_probe, roi_trial
from softfeed.pipelines.decoder import decoder_for
from softfeed.pipelines.roi_probe import Verdict, remembered_verdict, tried
from softfeed.pipelines.sources import open_source

STARTED = "print('whole images decoded', flush=True);"


@pytest.fixture(autouse=True)
def nothing_tried_yet(monkeypatch):
    monkeypatch.setenv(roi_probe._PASSED_ON, "{}")


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


def test_a_verdict_is_kept_for_its_machine(tmp_path, monkeypatch):
    cache = tmp_path / "new" / "folder" / "verdicts.json"
    crashed = remembered_verdict(cache, "one GPU", CRASH)
    assert not crashed.works
    assert remembered_verdict(cache, "another GPU", SUCCEED).works
    monkeypatch.setenv(roi_probe._PASSED_ON, "{}")
    # now the file answers, and no child is started
    assert remembered_verdict(cache, "one GPU", ["/no/such/command"]) == crashed
    assert remembered_verdict(cache, "another GPU", ["/no/such/command"]).works
    assert list(cache.parent.iterdir()) == [cache]


def test_what_may_be_otherwise_next_time_is_kept_for_this_process_and_its_children(tmp_path, monkeypatch):
    """Each loader would wait for a trial that hangs."""
    cache = tmp_path / "verdicts.json"
    early = remembered_verdict(cache, "GPU", EARLY)
    assert not early.works
    assert remembered_verdict(cache, "GPU", ["/no/such/command"]) == early
    code = f"""
from pathlib import Path
from softfeed.pipelines.roi_probe import remembered_verdict
print(remembered_verdict(Path({str(cache)!r}), "GPU", ["/no/such/command"]).reason)
"""
    assert subprocess.run(python(code), capture_output=True, text=True).stdout.strip() == early.reason
    monkeypatch.delenv(roi_probe._PASSED_ON)  # as in another process
    assert remembered_verdict(cache, "GPU", SUCCEED).works


def test_what_another_process_found_out_for_good_counts(tmp_path, monkeypatch):
    cache = tmp_path / "verdicts.json"
    assert not remembered_verdict(cache, "GPU", EARLY).works
    found = os.environ[roi_probe._PASSED_ON]
    monkeypatch.delenv(roi_probe._PASSED_ON)
    assert remembered_verdict(cache, "GPU", SUCCEED).works
    monkeypatch.setenv(roi_probe._PASSED_ON, found)
    assert remembered_verdict(cache, "GPU", ["/no/such/command"]).works


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


@pytest.fixture
def gpu(tmp_path, monkeypatch):
    """A GPU that is none, with a current nvJPEG and nothing remembered; (data set, device)."""
    monkeypatch.setattr("torch.cuda.get_device_name", lambda device: "NVIDIA Test")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda device: type("P", (), {"total_memory": 1 << 30}))
    monkeypatch.setattr(nvjpeg, "version", lambda: (13, 3, 2))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in "ab":
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "data" / name / "0.png")
    return open_source(tmp_path / "data"), torch.device("cuda", 0)


def test_where_parts_do_not_decode_the_user_is_told_once_and_whole_images_are(tmp_path, monkeypatch, gpu):
    monkeypatch.setattr(roi_probe.sys, "executable", str(_dying(tmp_path)))
    expected = "does not work on NVIDIA Test: a trial was ended by SIGSEGV; whole images are decoded"
    with pytest.warns(RuntimeWarning, match=expected):
        decoder = decoder_for(*gpu, 8, hw_decoder_load=0.65, roi_decode=None)
    assert not decoder.roi
    assert decoder_for(*gpu, 8, hw_decoder_load=0.65, roi_decode=True).roi  # no trial, no warning
    (kept,) = json.loads((tmp_path / "cache" / "softfeed" / "roi-decode.json").read_text())
    assert kept.startswith("NVIDIA Test, driver ")
    assert "nvidia-dali" in kept
    assert "nvidia-nvimgcodec" in kept
    assert "nvJPEG 13.3.2, trial " in kept


def test_each_way_to_upsample_has_a_trial_of_its_own(tmp_path, monkeypatch, gpu):
    """Which goes another way through the decoder."""
    monkeypatch.setattr(roi_probe, "tried", lambda command: Verdict(works=command[-1] == "simple", reason="a test"))
    settings = {"hw_decoder_load": 0.65, "roi_decode": None}
    assert decoder_for(*gpu, 8, fancy_upsampling=False, **settings).roi
    with pytest.warns(RuntimeWarning, match="does not work"):
        assert not decoder_for(*gpu, 8, fancy_upsampling=True, **settings).roi
    assert len(json.loads((tmp_path / "cache" / "softfeed" / "roi-decode.json").read_text())) == 2


def test_another_nvjpeg_is_tried_anew(monkeypatch, gpu):
    """What is installed may stay the same while another library comes first on the path."""
    versions = [(13, 3, 2), (13, 2, 1), (13, 2, 1), (13, 3, 2)]
    tries = []
    monkeypatch.setattr(roi_probe, "tried", lambda command: tries.append(1) or Verdict(works=True, reason="a test"))
    for version, count in zip(versions, (1, 2, 2, 2), strict=True):
        monkeypatch.setattr(nvjpeg, "version", lambda version=version: version)
        assert roi_probe.roi_decode_works(gpu[1])
        assert len(tries) == count


@pytest.mark.parametrize("version", [(12, 4, 0), (13, 1, 9)])
def test_an_nvjpeg_that_leaves_parts_to_the_cpu_is_told_of_and_not_asked_for_them(monkeypatch, gpu, version):
    monkeypatch.setattr(nvjpeg, "version", lambda: version)
    monkeypatch.setattr(roi_probe, "tried", lambda command: Verdict(works=True, reason="a test"))
    settings = {"hw_decoder_load": 0.65}
    told = f"nvJPEG {'.'.join(map(str, version))} leaves those with subsampled chroma to the CPU, 13.2 does not"
    with pytest.warns(RuntimeWarning, match=f"does not work on NVIDIA Test: {told}; whole images") as caught:
        assert not decoder_for(*gpu, 8, roi_decode=None, **settings).roi
    assert len(caught) == 1
    with pytest.warns(RuntimeWarning, match=f"decoding parts of images is slow: {told}"):
        assert decoder_for(*gpu, 8, roi_decode=True, **settings).roi
    # whole images and repeated chroma are decoded by any
    assert not decoder_for(*gpu, 8, roi_decode=False, **settings).roi
    assert decoder_for(*gpu, 8, roi_decode=None, fancy_upsampling=False, **settings).roi


@pytest.mark.parametrize("version", [(13, 2, 0), (14, 0, 0), None])
def test_a_current_nvjpeg_or_one_that_is_not_found_is_tried(monkeypatch, gpu, version):
    monkeypatch.setattr(nvjpeg, "version", lambda: version)
    monkeypatch.setattr(roi_probe, "tried", lambda command: Verdict(works=True, reason="a test"))
    assert decoder_for(*gpu, 8, hw_decoder_load=0.65, roi_decode=None).roi


def _dying(folder):
    """A program that ends as the trial does where the decoder crashes."""
    program = folder / "dying"
    program.write_text("#!/bin/sh\necho whole images decoded\nkill -SEGV $$\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("upsampling", ["fancy", "simple"])
def test_the_trial_itself_passes_on_the_cpu(capsys, upsampling):
    assert roi_trial.main("cpu", upsampling) == 0
    assert capsys.readouterr().out == "whole images decoded\n"


class FaultyGraph:
    """A graph whose decoder of parts has a fault: `spoil` gets the number of the batch, from 0, and its inputs."""

    def __init__(self, graph, spoil):
        self._graph, self._spoil, self._inputs, self._number = graph, spoil, {}, 0

    def feed_input(self, name, value):
        self._inputs[name] = value

    def run(self):
        inputs = self._spoil(self._number, dict(self._inputs))
        self._number += 1
        for name, value in inputs.items():
            self._graph.feed_input(name, value)
        return self._graph.run()


def shifted(axis, only=slice(None)):
    """Takes some parts of images a pixel further along an axis, or before it where there is no room."""

    def spoil(number, inputs):
        sides = np.array([_sides(image) for image in inputs["encoded"]])
        start, extent = inputs["start"].copy(), inputs["extent"]
        room = start[:, axis] + extent[:, axis] < sides[:, axis]
        moved = np.where(room, start[:, axis] + 1, np.maximum(start[:, axis] - 1, 0))
        start[only, axis] = moved[only]
        return inputs | {"start": start}

    return spoil


def _sides(image):
    with Image.open(io.BytesIO(image.tobytes())) as opened:
        return ImageOps.exif_transpose(opened).size[::-1]


@pytest.fixture
def faulty(monkeypatch):
    """Gives the decoder of parts a fault; whole images are decoded well."""
    graph = roi_trial._graph

    def make(spoil):
        monkeypatch.setattr(
            roi_trial,
            "_graph",
            lambda decoder, size: FaultyGraph(graph(decoder, size), spoil) if decoder.roi else graph(decoder, size),
        )

    return make


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(shifted(0), id="a pixel down"),
        pytest.param(shifted(1), id="a pixel to the right"),
        pytest.param(shifted(1, only=slice(7, 8)), id="one part a pixel to the right"),
    ],
)
def test_a_decoder_that_is_a_pixel_off_is_caught(capsys, faulty, spoil):
    faulty(spoil)
    assert roi_trial.main("cpu") == 3
    said = capsys.readouterr()
    assert said.out == "whole images decoded\n"
    assert re.fullmatch(r"a part, \d+x\d+ pixels of a (\d:\d:\d|grey) image, differs by \d+ of 255\n", said.err)


def test_a_decoder_that_does_not_take_up_another_batch_is_caught(capsys, faulty):
    seen = []

    def first_again(number, inputs):
        seen.append(inputs)
        return seen[0]

    faulty(first_again)
    assert roi_trial.main("cpu") == 3
    assert "a part, " in capsys.readouterr().err


def test_a_decoder_that_fails_when_it_uses_objects_again_is_caught(capsys, faulty):
    def fails(number, inputs):
        if number == 1:
            raise RuntimeError("error #8")
        return inputs

    faulty(fails)
    with pytest.raises(RuntimeError, match="error #8"):
        roi_trial.main("cpu")
    assert capsys.readouterr().out == "whole images decoded\n"


def test_a_decoder_that_ends_the_process_at_the_second_batch_is_caught():
    """In a child, as the trial is: what it does by the second batch of one pipeline."""
    code = """
import os, signal
from softfeed.pipelines import roi_trial
graph = roi_trial._graph
def crashing(decoder, size):
    made, run = graph(decoder, size), []
    def once():
        run.append(1)
        if decoder.roi and len(run) == 2:
            os.kill(os.getpid(), signal.SIGSEGV)
        return type(made).run(made)
    made.run = once
    return made
roi_trial._graph = crashing
roi_trial.main("cpu")
"""
    assert tried(python(code)) == Verdict(works=False, reason="a trial was ended by SIGSEGV")


def test_what_is_tried_is_what_loaders_ask_for():
    batches = roi_trial._batches(np.random.default_rng(0), 6, 64)
    assert len(batches) >= 4
    kinds = [{photograph.kind for photograph in photographs} for photographs, _ in batches]
    assert {"4:4:4", "4:2:0", "grey"} < kinds[0] == kinds[1]
    assert {"4:2:0"} in kinds
    for photographs, parts in batches:
        sides = np.array([photograph.sides for photograph in photographs])
        start, extent = parts["start"], parts["extent"]
        assert ((start >= 0) & (extent >= 1) & (start + extent <= sides)).all()
        for photograph, size in zip(photographs, sides.tolist(), strict=True):
            assert [*_sides(photograph.encoded)] == size
        corners = np.concatenate([start == 0, start + extent == sides], axis=1)
        pixels, rows, columns = (
            (extent == 1).all(axis=1),
            (extent[:, 0] == 1) & (extent[:, 1] == sides[:, 1]),
            (extent[:, 1] == 1) & (extent[:, 0] == sides[:, 0]),
        )
        assert len(np.unique(corners[pixels], axis=0)) >= 4
        assert rows.sum() >= 4
        assert columns.sum() >= 4
        assert (extent > 10).all(axis=1).sum() >= 16
    first, second = ([id(photograph) for photograph in photographs] for photographs, _ in batches[:2])
    assert first != second
    turned = [p for photographs, _ in batches for p in photographs if _turned(p.encoded)]
    assert {photograph.kind for photograph in turned} == {"4:4:4", "4:2:0", "4:2:2", "grey"}


def _turned(image):
    with Image.open(io.BytesIO(image.tobytes())) as opened:
        return opened.getexif().get(0x0112) == 6


def test_on_the_cpu_nothing_is_tried(white_folder, monkeypatch):
    monkeypatch.setattr(roi_probe, "tried", lambda command: pytest.fail("a trial was made"))
    with Loader(white_folder((8, 8), (8, 8)), Recipe(), 2, 8, device="cpu") as loader:
        assert loader._options.decoder.roi


@pytest.mark.gpu
@pytest.mark.parametrize("upsampling", ["fancy", "simple"])
def test_the_trial_on_this_gpu_ends_and_is_kept(tmp_path, monkeypatch, upsampling):
    """Whichever way it ends, this process goes on, and knows."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = [sys.executable, "-m", "softfeed.pipelines.roi_trial", "cuda:0", upsampling]
    verdict = remembered_verdict(tmp_path / "verdicts.json", "this", command)
    assert verdict.lasting, verdict.reason
    monkeypatch.setenv(roi_probe._PASSED_ON, "{}")
    assert remembered_verdict(tmp_path / "verdicts.json", "this", ["/no/such/command"]) == verdict
