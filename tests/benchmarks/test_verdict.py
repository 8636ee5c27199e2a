"""The sentences, on numbers made up so that there is only one right answer."""

from types import SimpleNamespace

import pytest
import torch
from softfeed.benchmarks import machine, verdict
from softfeed.benchmarks.rates import Rate
from softfeed.benchmarks.result import Result
from softfeed.benchmarks.steps import Played, Step, spreads_of, steps_of
from softfeed.benchmarks.training import _Announcing
from softfeed.pipelines import nvjpeg, presets
from softfeed.train.timing import LoopClock

from .conftest import rate, result


def ladder(**wall_us):
    """Rungs whose steps take so many microseconds, all of them on one core."""
    total, rates = 0, {}
    for name, microseconds in wall_us.items():
        total += microseconds
        rates[name] = Rate(name, (1e6 / total,) * 3, (total * 1e-6,) * 3)
    return rates


def test_steps_add_up_to_the_whole():
    rates = ladder(read=10, decode=500, resize=300, normalise=190)
    steps = steps_of(rates)
    assert [round(step.wall_us) for step in steps] == [10, 500, 300, 190]
    assert sum(step.wall_us for step in steps) == pytest.approx(1e6 / rates["normalise"].median)
    assert sum(step.cpu_us for step in steps) == pytest.approx(1e6 * rates["normalise"].cpu_s)


def test_steps_add_up_with_noise_too():
    rates = {"read": rate("read", 900, 1000, 1100), "decode": rate("decode", 1200, 1000, 1300)}  # quicker with more
    steps = steps_of(rates)
    assert steps[1].wall_us < 0
    assert sum(step.wall_us for step in steps) == pytest.approx(1e6 / 1200)


def test_the_largest_step_is_the_bottleneck():
    words = " ".join(verdict.of_steps(steps_of(ladder(read=10, decode=500, resize=490)), cores=1, gpu=False))
    assert "plays 1,000 images/s, 1,000 us per image" in words
    assert "largest part is decode: 500 us, 50%" in words
    assert "Without decode it would be at most 2,000 images/s" in words
    assert "100% of the 1 cores are busy" in words
    assert "store smaller images" in words


def test_a_step_far_below_nothing_leaves_the_largest_one_untold():
    """Other programs slowed the turns of one rung down."""
    steps = [
        Step("decode", 655.0, 1526.0, 1391.0),
        Step("resize", 371.0, 1171.0, 535.0),
        Step("normalise", 516.0, -760.0, -26.0),
    ]
    words = " ".join(verdict.of_steps(steps, cores=2, gpu=False))
    assert "plays 516 images/s" in words
    assert "normalise seems to take -760 us, and so the 1,526 us of decode may be noise as well" in words
    assert "By CPU time, which others disturb less, it is decode: 1,391 us" in words
    assert "Without" not in words
    assert "To change it" not in words
    small = [*steps[:2], Step("normalise", 371.5, -10.0, -26.0)]
    assert "The largest part is decode" in " ".join(verdict.of_steps(small, cores=2, gpu=False))


def test_idle_cores_mean_that_something_else_is_short():
    words = " ".join(verdict.of_steps(steps_of(ladder(read=900, decode=100)), cores=4, gpu=False))
    assert "Only 25% of the 4 cores are busy" in words
    assert "softfeed convert" in words


def test_idle_cores_on_a_busy_machine_say_nothing_about_a_disk():
    words = " ".join(verdict.of_steps(steps_of(ladder(read=900, decode=100)), cores=4, gpu=False, others=2.5))
    assert "25% of the 4 cores are busy with it, 2.5 with other programs" in words
    assert "disk, or has too few" not in words


def test_every_step_has_advice():
    from softfeed.benchmarks.session import recipe_by_name
    from softfeed.benchmarks.steps import _LATE
    from softfeed.pipelines.graph import stages

    names = {"read", "numbers", "hand-over", *_LATE.values()}
    for raw in (False, True):
        for recipe in ("everything", "soft-imagenet", "soft-cifar"):
            names |= set(stages(recipe_by_name(recipe, raw=raw), raw=raw))
    assert names <= set(verdict._ADVICE)


@pytest.mark.parametrize(
    ("alone", "loader", "waiting", "words"),
    [
        (400, 800, 0.001, "The training step is the bottleneck"),
        (400, 200, 0.5, "The loader is the bottleneck: without it training would do 400 images/s"),
        (400, 500, 0.2, "Loader and step share the cores"),
    ],
)
def test_who_waits_for_whom(alone, loader, waiting, words):
    rates = [rate("step alone", alone), rate("loader alone", loader), rate("both", 300, waiting=[waiting])]
    lines = verdict.of_training("resnet50", *rates, gpu=False)
    assert words in lines[-1]
    assert f"{waiting:.1%} of the time is spent waiting" in lines[0]


def test_a_gpu_that_waits_although_the_loader_is_fast():
    rates = [rate("step alone", 400), rate("loader alone", 800), rate("both", 300, waiting=[0.2])]
    assert "late at times" in verdict.of_training("resnet50", *rates, gpu=True)[-1]


def test_a_step_that_shares_its_gpu_is_not_advised_to_fetch_more_batches_ahead():
    rates = [rate("step alone", 400), rate("loader alone", 800), rate("both", 360, waiting=[0.01])]
    assert "is 10% slower beside the loader" in verdict.of_training("resnet50", *rates, gpu=True)[-1]
    assert verdict.of_training("resnet50", *rates, gpu=False)[-1].startswith("The training step is the bottleneck")


def test_what_a_loader_does_to_its_data_on_a_gpu_is_no_wait_for_it(monkeypatch, tiny_folder):
    """The stream of a GPU that is none: a fetch takes 3 ms until the graph's images are there, and 2 to finish them."""
    now = [0.0]

    class Event:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self, stream):
            self.at = now[0]

        def elapsed_time(self, other):
            return other.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)

    def batches(there):
        for number in range(4):
            now[0] += 3
            there()
            now[0] += 2
            yield number

    clock = LoopClock(torch.device("cuda"))
    for announced, waited_s in ((clock.data_is_there, 0.012), (lambda: None, 0.012 + 0.020)):
        for _ in clock.fetch(batches(announced)):
            now[0] += 10
        assert clock.read()[1] == pytest.approx(waited_s)

    # and the benchmark's loader says so, before it does anything to the images
    loader = Played(str(tiny_folder), presets.by_name("soft-imagenet"), 4, 16, 1, "cpu").loader(kind=_Announcing)
    said = []
    loader.clock = SimpleNamespace(data_is_there=lambda: said.append("there"))
    monkeypatch.setattr(loader._batches, "build", lambda *batch: said.append("finished"))
    assert len(list(loader)) == 5
    assert said == ["there", "finished"] * 5


def test_a_busy_machine_is_mentioned():
    assert result(rate("a", 1, 1, others=(0.05, 0.1))).disturbed() == []
    (line,) = result(rate("a", 1, 1, others=(0.9, 1.1))).disturbed()
    assert "1.0 cores busy" in line
    assert line in str(result(rate("a", 1, 1, others=(0.9, 1.1))))


def test_uncertain_numbers_are_called_so_before_what_follows_from_them():
    settings = {"repeats": 2}
    noisy = result(rate("a", 1, 1, others=(0.9, 1.1)), settings=settings, verdict=["The largest part is a."])
    few, busy, words = str(noisy).splitlines()[-3:]
    assert few == "These numbers are uncertain: 2 repeats cannot tell a difference from noise; use --repeats 5."
    assert busy.startswith("These numbers are uncertain: other programs kept 1.0 cores busy")
    assert words == "The largest part is a."
    assert "1 repeat cannot" in str(result(rate("a", 1), settings=settings))
    assert result(rate("a", 1, 1, 1), settings={"repeats": 3}).uncertain() == []
    assert result(rate("a", 1)).uncertain() == []  # one long run has no repeats


def test_an_old_nvjpeg_marks_a_result():
    on = {"cores": 2, "gpu": {"name": "H200", "slow_decoding": "nvJPEG 12.4.0 leaves those to the CPU"}}
    (line,) = result(rate("a", 1, 1, 1), machine=on).uncertain()
    assert line.startswith("Rates that begin with JPEGs are too low: of parts of images nvJPEG 12.4.0 leaves those to ")
    on["gpu"]["slow_decoding"] = None
    assert result(rate("a", 1, 1, 1), machine=on).uncertain() == []


def test_a_gpu_is_told_of_with_the_nvjpeg_in_use(monkeypatch):
    properties = SimpleNamespace(name="NVIDIA Test", total_memory=150_000_000_000)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    for version, slow in (((13, 3, 2), False), ((12, 4, 0), True), (None, False)):
        monkeypatch.setattr(nvjpeg, "version", lambda version=version: version)
        gpu = machine.machine()["gpu"]
        assert gpu["nvjpeg"] == (None if version is None else ".".join(map(str, version)))
        assert (gpu["slow_decoding"] is not None) == slow


def test_what_a_step_adds_has_the_spread_of_its_repeats():
    rates = {"read": rate("read", 1000, 500, 800, cpu_s=1e-3), "decode": rate("decode", 400, 400, 500, cpu_s=3e-3)}
    read, decode = spreads_of(rates, steps_of(rates))
    assert read == (pytest.approx((1000, 2000)), pytest.approx((1000, 1000)))
    assert decode == (pytest.approx((500, 1500)), pytest.approx((2000, 2000)))  # 2500 - 1000, 2500 - 2000, 2000 - 1250


def test_steps_are_frozen():
    assert isinstance(result(), Result)
    with pytest.raises(AttributeError):
        Step("a", 1, 1, 1).name = "b"


def test_an_epoch_of_a_few_batches_is_no_measure_of_a_large_data_set():
    assert verdict.of_epochs(640, 64) == []
    (words,) = verdict.of_epochs(500, 256)
    assert words.startswith("An epoch of these 500 images is 1 batch of 256: its beginning, ")
    assert words.endswith("or batches of at most 50.")
    assert verdict.of_epochs(500, 50) == []
    (words,) = verdict.of_epochs(5, 1)
    assert "is 5 batches of 1:" in words
    assert words.endswith("use more images, or links to them.")
