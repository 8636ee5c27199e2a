"""Recipes by name: which there are, what is in them, and what a wrong name is told."""

import pytest
from softfeed.pipelines import Mollify, RandAugment, TrivialAugment, presets

CROPS = ["hard-cifar", "hard-imagenet", "soft-cifar", "soft-imagenet"]


def test_every_crop_goes_with_every_policy_and_with_mollification():
    wanted = [f"{crop}{policy}{moll}" for crop in CROPS for policy in ("", "-ra", "-ta") for moll in ("", "-moll")]
    assert presets.names() == sorted(wanted)


@pytest.mark.parametrize("crop", CROPS)
def test_a_suffix_adds_its_step_and_nothing_else(crop):
    plain = presets.by_name(crop)
    assert plain.policy is None
    assert plain.mollify is None
    both = presets.by_name(f"{crop}-ta-moll")
    assert (both.policy, both.mollify) == (TrivialAugment(), Mollify())
    assert (both.crop, both.flip, both.normalize) == (plain.crop, plain.flip, plain.normalize)
    assert presets.by_name(f"{crop}-ra").policy == RandAugment()
    assert presets.by_name(f"{crop}-moll").policy is None
    assert presets.by_name(f"{crop}-moll").mollify == Mollify()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("soft-imagenet-moll-ta", "did you mean soft-imagenet-ta-moll\\?"),
        ("soft-cifar-mol", "did you mean soft-cifar-moll or "),
        ("zzz", "did you mean hard-cifar or hard-imagenet or soft-cifar or soft-imagenet\\?"),
        ("", "got ''; did you mean hard-cifar or "),
    ],
)
def test_a_wrong_name_is_told_the_nearest(name, advice):
    with pytest.raises(ValueError, match=advice):
        presets.by_name(name)
