"""Recipes by name: which there are, what is in them, and what a wrong name is told."""

from itertools import product

import pytest
from softfeed.pipelines import (
    AugMix,
    AutoAugment,
    CutMix,
    Mixup,
    Mollify,
    Occlude,
    RandAugment,
    Recipe,
    SoftCrop,
    TrivialAugment,
    preset_names,
    presets,
)

CROPS = ["hard-cifar", "hard-imagenet", "soft-cifar", "soft-imagenet"]


def test_every_crop_goes_with_every_policy_every_mix_and_mollification():
    policies = ("", "-ra", "-ta", "-aa", "-augmix")
    mixes = ("", "-mixup", "-cutmix", "-copypaste", "-mosaic")
    parts = product(CROPS, policies, mixes, ("", "-moll"))
    assert presets.names() == sorted(map("".join, parts))


def test_the_names_in_the_help_are_those_of_the_presets():
    for known, names in (
        (presets._CROPS, preset_names.CROPS),
        (presets._POLICIES, ("", *preset_names.POLICIES)),
        (presets._MIXES, ("", *preset_names.MIXES)),
        (presets._MOLLIFY, ("", *preset_names.MOLLIFY)),
    ):
        assert tuple(known) == names
        assert all(name in preset_names.grammar() for name in names)


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
    assert plain.mix is None
    assert presets.by_name(f"{crop}-augmix-cutmix").policy == AugMix(severity=3 if "cifar" in crop else 1)
    assert presets.by_name(f"{crop}-aa").policy == AutoAugment("reduced_cifar10" if "cifar" in crop else "image_net")
    assert presets.by_name(f"{crop}-mixup").mix == Mixup(alpha=1.0 if "cifar" in crop else 0.2)
    assert isinstance(presets.by_name(f"{crop}-augmix-cutmix").mix, CutMix)


@pytest.mark.parametrize("name", [None, ["soft-imagenet"], Mollify()])
def test_what_is_no_name_is_said(name):
    with pytest.raises(TypeError, match="recipe must be the name of a preset, such as 'soft-imagenet', got "):
        presets.by_name(name)


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


def test_a_recipe_in_a_file_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from softfeed.pipelines import Occlude, Recipe, SoftCrop\n"
        "SHARE = 0.5\n"
        "HIDDEN = Recipe(crop=SoftCrop(), occlude=Occlude(share=(0.0, SHARE)))\n"
    )
    hidden = Recipe(crop=SoftCrop(), occlude=Occlude(share=(0.0, 0.5)))
    assert presets.by_name(f"{tmp_path}/mine.py:HIDDEN") == hidden
    monkeypatch.chdir(tmp_path)
    assert presets.by_name("mine.py:HIDDEN") == hidden
    with pytest.raises(ValueError, match=r"one of those in mine\.py, HIDDEN, got 'SHARE'$"):
        presets.by_name("mine.py:SHARE")
    (tmp_path / "empty.py").touch()
    with pytest.raises(ValueError, match=r"one of those in empty\.py, which has none, got 'HIDDEN'$"):
        presets.by_name("empty.py:HIDDEN")
    with pytest.raises(FileNotFoundError, match=r"in a file that exists, got her\.py; check the path"):
        presets.by_name("her.py:HIDDEN")


def test_a_file_that_is_not_python_is_told_from_a_wrong_name():
    with pytest.raises(ValueError, match=r"FILE\.py:NAME with the name of a Python file, got 'recipes:HIDDEN'"):
        presets.by_name("recipes:HIDDEN")
