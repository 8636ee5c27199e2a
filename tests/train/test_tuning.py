"""Which setting wins, with a clock and loaders made for the test, and the command on real ones."""

import json
import re

import numpy as np
import pytest
import torch
from softfeed.pipelines import Loader, presets
from softfeed.train import tune_command, tuning
from softfeed.train.cli import main
from softfeed.train.tuning import MIN_ROUNDS, Trial, faster, tune

OTHER_SIZE = "image_size must be the images' own size with SoftShift, got 24 .* choose --recipe soft-imagenet"


class Clock:
    """Time that passes only where a fake loader says so."""

    def __init__(self):
        self.now, self.playing = 0.0, None

    def perf_counter(self):
        return self.now


class FakeLoader:
    """Batches of ten images, each of which takes `cost` seconds and some noise, or none if decoded during a pause."""

    device = torch.device("cpu")

    def __init__(self, clock, cost, rng, noise, **settings):
        self.clock, self.cost, self.rng, self.noise = clock, cost, rng, noise
        self.speed_settings = {"num_threads": 2, "prefetch": 2} | settings
        self.closed = False
        self.ready = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.closed = True

    def __iter__(self):
        for _ in range(5):
            if self.clock.playing is not self:  # the one before is paused, and this one's pause is over
                self.clock.playing, self.ready = self, self.speed_settings["prefetch"]
            if self.ready:
                self.ready -= 1
            else:
                self.clock.now += self.cost * float(self.rng.lognormal(0, self.noise))
            yield (np.zeros((10, 3, 1, 1)),)


@pytest.fixture
def tuned(monkeypatch):
    """Tunes fake loaders: a function of (cost by settings, noise); returns the trials and the loaders."""

    def run(cost, noise=0.0, choices=None, seed=0, **options):
        clock, rng, loaders = Clock(), np.random.default_rng(seed), []
        monkeypatch.setattr(tuning, "time", clock)

        def make(**settings):
            loaders.append(FakeLoader(clock, cost(settings), rng, noise, **settings))
            return loaders[-1]

        start = {"num_threads": 2, "prefetch": 2}
        choices = choices or {"num_threads": (1, 2, 4), "prefetch": (1, 2, 4)}
        settings = {"seconds": 100.0, "rounds": 7, "report": lambda text: None} | options
        return list(tune(make, start, choices, **settings)), loaders, clock

    return run


def test_the_fastest_value_of_each_setting_is_taken(tuned):
    trials, loaders, _ = tuned(lambda s: 0.1 / s["num_threads"] * (0.5 if s["prefetch"] == 4 else 1), noise=0.02)
    assert [(trial.name, trial.chosen) for trial in trials] == [("num_threads", 4), ("prefetch", 4)]
    assert [trial.values for trial in trials] == [(2, 1, 4), (2, 1, 4)]
    assert trials[0].gain == pytest.approx(2, rel=0.05)
    assert trials[0].medians == pytest.approx((200, 100, 400), rel=0.05)
    # prefetch was tried with the threads that had won
    assert all(loader.speed_settings["num_threads"] == 4 for loader in loaders[3:])
    assert all(loader.closed for loader in loaders)


def test_the_default_stays_where_the_rest_is_as_fast(tuned):
    trials, *_ = tuned(lambda s: 0.1)
    assert [trial.chosen for trial in trials] == [2, 2]
    assert [trial.gain for trial in trials] == [1, 1]


def test_a_small_gain_is_not_worth_another_setting(tuned):
    trials, *_ = tuned(lambda s: 0.1 / (1.02 if s["prefetch"] == 4 else 1))
    assert trials[1].chosen == 2


def test_time_is_kept_where_batches_are_quick(tuned):
    *_, clock = tuned(lambda s: 0.01, seconds=50.0)
    assert clock.now == pytest.approx(50, rel=0.1)


def test_time_is_up_after_the_fewest_rounds_where_batches_are_slow(tuned):
    trials, *_ = tuned(lambda s: 5.0, seconds=10.0, rounds=30)
    assert {len(rates) for trial in trials for rates in trial.images_per_s} == {MIN_ROUNDS}


def test_noise_wins_seldom_and_a_real_gain_always():
    """Rates in the same rounds of one value in use and four others, a thousand times over."""
    rng = np.random.default_rng(0)
    alike = [faster(rng.lognormal(0, 0.2, (5, 7)).tolist()) for _ in range(1000)]
    assert np.mean(np.array(alike) > 0) < 0.05
    better = np.array([1, 1, 1.2, 1, 1])[:, None]
    # rounds differ by more than the gain, values within a round by less
    played = [better * rng.lognormal(0, 0.5, 7) * rng.lognormal(0, 0.03, (5, 7)) for _ in range(1000)]
    assert np.mean([faster(rates.tolist()) == 2 for rates in played]) > 0.98


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"seconds": 0}, "seconds must be positive, got 0"),
        ({"seconds": float("inf")}, "seconds must be positive, got inf"),
        ({"rounds": 4}, "rounds must be at least 5, got 4"),
    ],
)
def test_impossible_budgets_are_refused(tuned, option, message):
    with pytest.raises(ValueError, match=message):
        tuned(lambda s: 0.1, **option)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from PIL import Image

    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(12):
        path = root / f"c{number % 2}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(path)
    return root


@pytest.fixture
def command(photos, monkeypatch, capsys):
    monkeypatch.setattr(tuning, "_LEAST_S", 0.001)

    def run(*options):
        small = ["--device", "cpu", "--batch-size", "4", "--image-size", "16", "--seconds", "0.1", "--rounds", "5"]
        assert main(["tune", str(photos), *small, *options]) == 0
        return capsys.readouterr().out

    return run


def test_what_json_says_goes_into_a_loader_and_a_training_run(command, photos, tmp_path):
    result = json.loads(command("--json"))
    assert sorted(result["settings"]) == ["num_threads", "prefetch"]
    assert result["faster_with_other_pixels"] is None
    by_name = {trial["setting"]: trial for trial in result["measured"]}
    assert list(by_name) == ["num_threads", "prefetch", "batch_size"]
    for trial in by_name.values():
        assert all(len(rates["rounds"]) >= 5 and min(rates["rounds"]) > 0 for rates in trial["images_per_s"])
        assert trial["in_use"] == trial["images_per_s"][0]["value"]
    assert [rates["value"] for rates in by_name["batch_size"]["images_per_s"]] == [4, 1, 2, 8]
    with Loader(photos, presets.by_name("soft-imagenet"), 4, 16, device="cpu", **result["settings"]) as loader:
        assert loader.speed_settings == result["settings"]
        assert len(list(loader)) == 3
    training = ["train", str(photos), "--model", "small-cnn", "--epochs", "1", "--output", str(tmp_path / "run")]
    small = ["--image-size", "16", "--batch-size", "4", "--device", "cpu"]
    assert main([*training, *small, *result["options"].split()]) == 0


def test_a_recipe_that_needs_soft_targets(command):
    result = json.loads(command("--recipe", "soft-imagenet-mixup", "--json"))
    assert sorted(result["settings"]) == ["num_threads", "prefetch"]


def test_a_gpu_has_more_to_choose_from():
    start = {"num_threads": 8, "prefetch": 2, "hw_decoder_load": 0.65, "roi_decode": True}
    assert list(tune_command._choices(start)) == ["num_threads", "hw_decoder_load", "roi_decode", "prefetch"]
    # where parts of images crash the decoder, they are not tried
    crashes = tune_command._choices(start | {"roi_decode": False})
    assert "roi_decode" not in crashes
    assert crashes["num_threads"] == (4, 7, 8, 9, 16)
    rates = ((1.0,) * 5, (2.0,) * 5)
    whole = [Trial("hw_decoder_load", (0.65, 0.5), rates, 0.5), Trial("roi_decode", (True, False), rates, False)]
    assert tune_command._settings(whole) == {"hw_decoder_load": 0.5, "roi_decode": False}
    parts = Trial("roi_decode", (True, False), rates, True)
    assert tune_command._settings([parts]) == {}
    assert "takes roi_decode = False: 2.00 times as fast as True" in tune_command._table(whole[1])


def test_a_gpu_may_upsample_in_another_way_with_other_shares():
    """The pixels that are chosen first; where whole images have to be decoded so, parts may do otherwise."""
    ways = tune_command._ways_to_upsample({"num_threads": 8, "hw_decoder_load": 0.8})
    assert ways == {
        "--fancy-upsampling --hw-decoder-load 0.8": {
            "num_threads": 8,
            "hw_decoder_load": 0.8,
            "fancy_upsampling": True,
        },
        **{
            f"--no-fancy-upsampling --hw-decoder-load {share}": {
                "num_threads": 8,
                "hw_decoder_load": share,
                "fancy_upsampling": False,
            }
            for share in (0.0, 0.65, 0.8, 1.0)
        },
    }
    assert set(
        tune_command._choices({"num_threads": 8, "prefetch": 3, "hw_decoder_load": 0.65})["hw_decoder_load"]
    ) >= {
        0.0,
        0.65,
        1.0,
    }


QUICK, SLOW = (2.0,) * 5, (1.0,) * 5


def test_what_changes_pixels_is_offered_with_its_price_and_never_taken():
    values = ("--fancy-upsampling --hw-decoder-load 0.65", "--no-fancy-upsampling --hw-decoder-load 1.0")
    quicker = Trial("fancy_upsampling", values, (SLOW, QUICK), values[0])
    offered = tune_command._offer(quicker)
    assert f"keeps fancy_upsampling = True; {values[1]} is 2.00 times as fast, but changes pixels" in offered
    assert tune_command._quicker(quicker) == values[1]
    slower = Trial("fancy_upsampling", values, (QUICK, SLOW), values[0])
    assert "pixels would change, and nothing is clearly faster" in tune_command._offer(slower)
    assert tune_command._quicker(slower) is None


@pytest.fixture
def on_gpu(monkeypatch):
    """Has loaders say that they decode on a GPU, and tells the settings that they were asked for."""
    asked = []

    class OnGpu(Loader):
        def __init__(self, *args, **settings):
            asked.append(dict(settings))
            decoder = {"hw_decoder_load": 0.65, "roi_decode": True}
            self._decoder = {name: settings.pop(name, value) for name, value in decoder.items()}
            settings.pop("fancy_upsampling", None)
            super().__init__(*args, **settings)

        @property
        def speed_settings(self):
            return super().speed_settings | self._decoder

    monkeypatch.setattr("softfeed.pipelines.Loader", OnGpu)
    return asked


def test_on_a_gpu_other_pixels_are_played_beside_what_is_chosen(command, on_gpu):
    result = json.loads(command("--json"))
    by_name = {trial["setting"]: trial for trial in result["measured"]}
    names = ["num_threads", "hw_decoder_load", "roi_decode", "prefetch"]
    assert list(by_name) == [*names, "batch_size", "fancy_upsampling"]
    assert "fancy_upsampling" not in result["settings"]
    assert "fancy" not in result["options"]
    played = by_name["fancy_upsampling"]
    assert played["chosen"] == played["in_use"]
    assert played["in_use"].startswith("--fancy-upsampling --hw-decoder-load ")
    assert result["faster_with_other_pixels"] is None or "--no-fancy" in result["faster_with_other_pixels"]
    repeated = [settings for settings in on_gpu if settings.get("fancy_upsampling") is False]
    assert {settings["hw_decoder_load"] for settings in repeated} >= {0.0, 0.65, 1.0}
    # parts decode with one way to upsample, and may crash with the other: the loader is left to find out
    assert all(settings.get("roi_decode") is not True for settings in repeated)
    text = command()
    assert "keeps fancy_upsampling = True" in text
    assert "fancy" not in text.split("the defaults are as good" if "the defaults" in text else "use these")[1]


def test_what_people_read_names_the_settings_to_use(command, photos):
    out = command()
    assert "images/s: median (lowest to highest of 5 rounds)" in out
    assert out.count("keeps ") + out.count("takes ") == 2
    assert f"softfeed train {photos} --recipe soft-imagenet --image-size " in out
    (line,) = [line.strip() for line in out.splitlines() if line.startswith("  Loader(")]
    with eval(line, {"Loader": Loader, "presets": presets}) as loader:  # as a person would paste it
        assert (str(loader.dataset.root), loader.batch_size) == (str(photos), 4)
        assert f"--recipe soft-imagenet --image-size {loader.image_size} " in out


@pytest.mark.parametrize(
    ("changed", "tuned", "told"),
    [
        ({}, 2, ["  (without --threads, train reads data with num_threads = 1, not 2, to leave cores to the network)"]),
        ({}, 1, []),
        ({"num_threads": 2}, 2, []),  # the command above has --threads 2
    ],
)
def test_another_number_of_threads_in_training_is_explained(monkeypatch, changed, tuned, told):
    monkeypatch.setattr("softfeed.pipelines.cores.available", lambda: 2)
    assert tune_command._told_of_threads(changed, tuned, torch.device("cpu")) == told


def test_a_loader_of_mixed_images_asks_for_soft_targets(command):
    assert "presets.by_name('soft-imagenet-mixup'), 4, " in (out := command("--recipe", "soft-imagenet-mixup"))
    assert ", targets='soft')" in out


def test_options_of_a_gpu_are_those_of_the_training_command():
    import argparse

    from softfeed.train import data_options

    parser = argparse.ArgumentParser()
    data_options.add_speed_options(parser)
    settings = {"prefetch": 3, "hw_decoder_load": 0.25, "roi_decode": False, "fancy_upsampling": False}
    words = data_options.as_options(settings).split()
    assert data_options.speed_settings(parser.parse_args(words)) == settings
    assert data_options.speed_settings(parser.parse_args([])) == {
        "prefetch": None,
        "hw_decoder_load": 0.65,
        "roi_decode": None,
        "fancy_upsampling": True,
    }
    assert data_options.as_options({"num_threads": 5, "roi_decode": True}) == "--threads 5 --roi-decode"


def test_only_training_images_are_decoded_with_other_pixels(photos, tmp_path, capsys, on_gpu):
    """Validation sees what `softfeed eval` does on any machine."""
    training = ["train", str(photos), "--val", str(photos), "--model", "small-cnn", "--epochs", "1"]
    small = ["--image-size", "16", "--batch-size", "4", "--device", "cpu", "--output", str(tmp_path / "run")]
    assert main([*training, *small, "--no-fancy-upsampling"]) == 0
    assert [settings["fancy_upsampling"] for settings in on_gpu] == [False, True]


def test_a_cpu_refuses_other_pixels(photos, tmp_path, capsys):
    training = ["train", str(photos), "--model", "small-cnn", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert main([*training, "--device", "cpu", "--batch-size", "4", "--no-fancy-upsampling"]) == 2
    assert capsys.readouterr().err == (
        "softfeed: error: fancy_upsampling must be True on a CPU, whose decoder always interpolates, got False\n"
    )


def test_a_wrong_time_to_read_is_named_as_the_option(photos, tmp_path, capsys):
    training = ["train", str(photos), "--model", "small-cnn", "--epochs", "1", "--output", str(tmp_path / "run")]
    assert main([*training, "--device", "cpu", "--read-timeout", "-1"]) == 2
    assert "read-timeout must be finite and not negative, got -1.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rounds", "2"], "rounds must be at least 5, got 2"),
        (["--seconds", "-1"], "seconds must be positive, got -1.0"),
        (["--batch-size", "0"], "batch_size must be a whole number of at least 1, got 0"),
        (["--recipe", "softest"], "recipe must be one of the presets, got 'softest'"),
        (["--recipe", "soft-cifar", "--image-size", "24"], OTHER_SIZE),
    ],
)
def test_wrong_options_are_one_line(photos, capsys, options, message):
    assert main(["tune", str(photos), "--device", "cpu", *options]) == 2
    assert re.match(f"softfeed: error: {message}", capsys.readouterr().err)


def test_data_that_is_not_there_is_one_line(capsys):
    assert main(["tune", "/nowhere"]) == 2
    assert "DATA must be an image folder or a shard set, got /nowhere" in capsys.readouterr().err
