"""Settings in checkpoints, across versions of the dataclasses that they come from."""

from dataclasses import dataclass, field, make_dataclass

from softfeed.pipelines import Flip, presets
from softfeed.pipelines.described import described, is_described


@dataclass(frozen=True)
class Crop:
    sigma: float = 0.3


@dataclass(frozen=True)
class Setting:
    size: int
    crop: Crop = field(default_factory=Crop)
    flip: Flip | None = None
    mean: tuple[float, ...] = (0.5, 0.5)


def newer(**settings):
    """`Setting` as a later version might have it, with two more fields."""
    more = [("noise", float, field(default=0.0)), ("slots", list, field(default_factory=list))]
    return make_dataclass("Setting", more, bases=(Setting,), frozen=True)(**settings)


def test_a_description_is_plain_and_tells_settings_apart():
    assert described(Setting(3, flip=Flip())) == {
        "class": "Setting",
        "size": 3,
        "crop": {"class": "Crop", "sigma": 0.3},
        "flip": {"class": "Flip", "probability": 0.5},
        "mean": [0.5, 0.5],
    }
    assert is_described(described(Setting(3)), Setting(3))
    for other in (Setting(4), Setting(3, Crop(0.2)), Setting(3, flip=Flip()), Setting(3, mean=(0.5, 0.6)), Crop(), 3):
        assert not is_described(described(Setting(3)), other)


def test_new_fields_must_have_their_defaults():
    saved = described(Setting(3))
    assert is_described(saved, newer(size=3))
    assert not is_described(saved, newer(size=3, noise=0.1))
    assert not is_described(saved, newer(size=3, slots=[1]))
    assert not is_described(saved, newer(size=4))


def test_a_default_that_has_changed_and_a_field_that_has_gone_are_differences():
    saved = described(Setting(3))
    saved["crop"]["sigma"] = 0.25  # the default of that time
    assert not is_described(saved, Setting(3))
    assert not is_described(described(newer(size=3)), Setting(3))
    del (saved := described(Setting(3)))["size"]  # never had a default
    assert not is_described(saved, Setting(3))


def test_every_preset_is_described_by_itself_alone():
    recipes = {name: presets.by_name(name) for name in presets.names()}
    for name in [name for name in recipes if name.startswith("soft-imagenet")]:
        saved = described(recipes[name])
        assert [other for other, recipe in recipes.items() if is_described(saved, recipe)] == [name]
