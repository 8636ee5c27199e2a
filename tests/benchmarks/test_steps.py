"""The ladder of steps: it has the loader's own stages, and each rung plays every image."""

from dataclasses import replace

import pytest
from softfeed.benchmarks.session import recipe_by_name
from softfeed.benchmarks.steps import Played, ladder
from softfeed.pipelines import Mollify, Occlude, TrivialAugment, presets
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions


def counts(contender):
    return list(contender._batches())


def test_the_full_recipe_has_every_step(tiny_folder):
    names = ["read", "numbers", "decode", "resize", "normalise", "hand-over", "occlusion", "mollification"]
    assert list(ladder(Played(str(tiny_folder), recipe_by_name("full", raw=False), 4, 16, 1, "cpu"))) == names
    rungs = ladder(Played(str(tiny_folder), recipe_by_name("everything", raw=False), 4, 16, 1, "cpu"))
    assert list(rungs) == [*names[:4], "policy", *names[4:]]
    assert counts(rungs["policy"]) == [4] * 5


@pytest.mark.parametrize("raw", [False, True])
def test_full_is_crop_flip_occlusion_and_mollification(raw):
    full, everything = (recipe_by_name(name, raw=raw) for name in ("full", "everything"))
    soft = presets.by_name("soft-cifar" if raw else "soft-imagenet")
    assert full == replace(soft, occlude=Occlude(share=(0.0, 0.8)), mollify=Mollify())
    assert everything == replace(full, policy=TrivialAugment())


def test_every_rung_plays_every_batch(tiny_folder):
    rungs = ladder(Played(str(tiny_folder), recipe_by_name("full", raw=False), 4, 16, 1, "cpu"))
    for contender in rungs.values():
        assert counts(contender) == counts(contender) == [4] * 5


def test_views_are_images_of_their_own(tiny_folder):
    recipe = replace(presets.by_name("soft-imagenet"), views=2)
    rungs = ladder(Played(str(tiny_folder), recipe, 4, 16, 1, "cpu"))
    assert list(rungs) == ["read", "numbers", "decode", "resize", "normalise", "hand-over"]
    assert {name: counts(rung)[0] for name, rung in rungs.items()} == dict.fromkeys(rungs, 8) | {"read": 4}


def test_raw_images_have_other_stages(tiny_folder, tmp_path):
    raw = convert(tiny_folder, tmp_path / "raw", ShardOptions(raw=True), workers=1).folder
    rungs = ladder(Played(str(raw), presets.by_name("soft-cifar-moll"), 4, 16, 1, "cpu"))
    assert list(rungs) == ["read", "numbers", "normalise", "shift", "hand-over", "mollification"]
    rungs |= ladder(Played(str(raw), presets.by_name("soft-imagenet"), 4, 16, 1, "cpu"))
    assert "cut" in rungs
    for contender in rungs.values():
        assert counts(contender) == [4] * 5
