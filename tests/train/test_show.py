"""`softfeed show`: the grid, its captions, and the curves."""

import io
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from softfeed.pipelines import (
    AdditiveNoise,
    CutMix,
    Flip,
    Loader,
    Mixup,
    Mollify,
    Mosaic,
    Occlude,
    PadCrop,
    RandAugment,
    Recipe,
    SoftShift,
    StepDecay,
    TrivialAugment,
    presets,
)
from softfeed.train import captions, recipe_curves, show_command, tile_grid
from softfeed.train.cli import main

DRAWN = {"visibility": np.float32(0.618), "flipped": np.bool_(0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve images of 32 x 32 pixels in three classes, every one of a single colour of its own."""
    root = tmp_path_factory.mktemp("colours")
    for index in range(12):
        path = root / f"class{index % 3}" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (20 * index, 200 - 10 * index, 100)).save(path)
    return root


@pytest.fixture(scope="module")
def raw_set(folder, tmp_path_factory):
    target = tmp_path_factory.mktemp("sets") / "raw"
    assert main(["convert", str(folder), str(target), "--raw", "--workers", "1"]) == 0
    return target


def test_a_folder_by_its_default_recipe(folder, tmp_path, capsys):
    arguments = ["-o", str(tmp_path / "a.png"), "--num", "2", "--versions", "3", "--image-size", "64"]
    assert main(["show", str(folder), *arguments]) == 0
    assert "a.png: 2 rows of 1 + 3 images" in capsys.readouterr().out
    rows = show_command.tiles(str(folder), presets.by_name("soft-imagenet"), 64, num=2, versions=3)
    with Image.open(tmp_path / "a.png") as picture:
        # margins, four tiles of 64 pixels enlarged four times, the first column aside, gaps
        assert picture.width == 24 + 4 * 256 + 36 + 2 * 16 + 24
        assert picture.height == 24 + 40 + 2 * (256 + 14 + 2 * 18 + 16)
        pixels = np.asarray(picture)
    top = 24 + 40
    for column, left in enumerate((24, 24 + 256 + 36)):
        shown = pixels[top : top + 256, left : left + 256]
        np.testing.assert_array_equal(shown[2::4, 2::4], rows[0][column].image)
        np.testing.assert_array_equal(shown, shown[2::4, 2::4].repeat(4, axis=0).repeat(4, axis=1))
    with Image.open(tmp_path / "a-curves.png") as picture:
        assert picture.size == (748, 578)  # one panel, 4.4 x 3.4 inches


def test_a_raw_set_by_its_default_recipe(raw_set, tmp_path):
    given = ["show", str(raw_set), "-o", str(tmp_path / "raw.png"), "--curves", str(tmp_path / "c.png")]
    assert main([*given, "--num", "1", "--versions", "1", "--sigma-decay-epochs", "20"]) == 0
    with Image.open(tmp_path / "raw.png") as picture:
        assert picture.width == 24 + 2 * 224 + 36 + 24
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size == (2 * 748, 578)  # softening, and the schedule of sigma
    assert not (tmp_path / "raw-curves.png").exists()


def test_a_recipe_without_curves(folder, tmp_path, capsys):
    given = ["show", str(folder), "-o", str(tmp_path / "a.png"), "--recipe", "hard-cifar", "--image-size", "32"]
    assert main([*given, "--num", "1", "--versions", "1"]) == 0
    assert "no curves: hard-cifar leaves labels as they are" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


def test_tiles_are_what_training_sees(folder):
    """The first version of each image, and its confidence, are those of the loader, whatever its batch size."""
    recipe = presets.by_name("soft-cifar-moll")
    rows = show_command.tiles(str(folder), recipe, 32, num=4, versions=2, seed=5, epoch=3)
    with Loader(folder, recipe, 1, 32, seed=5, device="cpu", details=True) as loader:
        loader.set_epoch(3)
        batches = [batch for _, batch in zip(range(4), loader, strict=False)]
        names = [loader.classes[int(batch.labels[0])] for batch in batches]
    assert len({row[0].image.tobytes() for row in rows}) == 4
    for row, batch, name in zip(rows, batches, names, strict=True):
        evaluation, first, second = row
        assert [tile.name for tile in row] == [name] * 3
        assert (evaluation.confidence, evaluation.words) == (1.0, ["centre crop", "label not softened"])
        assert first.confidence == float(batch.confidence[0])
        assert first.words[0] == f"{batch.details['visibility'][0]:.0%} visible"
        mean, std = (np.array(values)[:, None, None] for values in (recipe.normalize.mean, recipe.normalize.std))
        pixels = ((batch.images[0].numpy() * std + mean) * 255).clip(0, 255).transpose(1, 2, 0)
        np.testing.assert_allclose(first.image, pixels, atol=0.51)  # rounded to whole levels
        assert second.confidence != first.confidence


def test_every_step_has_its_words(folder):
    steps = {
        "occlude": Occlude(0.25),
        "noise": AdditiveNoise(),
        "mollify": Mollify(clean=0),
    }
    recipe = Recipe(crop=SoftShift(), flip=Flip(1.0), **steps)
    for row in show_command.tiles(str(folder), recipe, 32, num=2, versions=2):
        for tile in row[1:]:
            visible, flipped, covered, amplitude, mollified = tile.words
            assert visible.endswith("% visible")
            assert (flipped, covered) == ("flipped", "25% covered")
            assert amplitude.startswith("noise amplitude ")
            assert re.fullmatch(r"(noise|blur) t = 0\.\d\d", mollified)


def test_captions_name_what_happened_to_the_pixels(tmp_path):
    """On images of one grey, the operation and magnitude in the caption give the pixels."""
    for index in range(12):
        (tmp_path / f"c{index % 2}").mkdir(exist_ok=True)
        Image.new("RGB", (32, 32), (100, 100, 100)).save(tmp_path / f"c{index % 2}" / f"{index}.png")
    recipe = Recipe(crop=PadCrop(padding=0), flip=None, policy=RandAugment(num_ops=1, magnitude=20))
    rows = show_command.tiles(str(tmp_path), recipe, 32, num=12, versions=8)
    grey = {
        "brightness +0.60": 160,
        "brightness \N{MINUS SIGN}0.60": 40,
        "solarize 85": 155,
        "posterize 5 bits": 96,
        "identity": 100,
    }
    seen = set()
    for tile in (tile for row in rows for tile in row[1:]):
        assert tile.words[0] == "100% visible"
        if tile.words[1] in grey:
            seen.add(tile.words[1])
            np.testing.assert_allclose(tile.image, grey[tile.words[1]], atol=1)
    assert seen == set(grey)


@pytest.mark.parametrize(
    ("recipe", "details", "words"),
    [
        (Recipe(), {"flipped": np.bool_(1)}, ["62% visible", "flipped"]),
        (Recipe(), {"visibility": np.float32(0.004)}, ["0% visible"]),
        (Recipe(), {"covered": np.int32(400)}, ["62% visible", "39% covered"]),
        (Recipe(), {"noise_amplitude": np.float32(-0.126)}, ["62% visible", "noise amplitude \N{MINUS SIGN}0.13"]),
        (Recipe(), {"noise_amplitude": np.float32(-0.001)}, ["62% visible", "noise amplitude 0.00"]),
        (Recipe(), {"mollify_role": np.str_("blur"), "mollify_strength": 0.5}, ["62% visible", "blur t = 0.50"]),
        (Recipe(), {"mollify_role": np.str_("clean"), "mollify_strength": 0.5}, ["62% visible", "clean"]),
        (Recipe(), {"mollify_role": np.str_("pure_noise"), "mollify_strength": 0.5}, ["62% visible", "pure noise"]),
    ],
)
def test_words(recipe, details, words):
    assert captions.words(recipe, DRAWN | details, size=32) == words


@pytest.mark.parametrize(
    ("policy", "operation", "drawn", "words"),
    [
        (TrivialAugment(), "rotate", (15, 1), "rotate \N{MINUS SIGN}68°"),
        (TrivialAugment(), "translate_x", (30, 0), "translate x +32 px"),
        (TrivialAugment(), "translate_y", (0, 1), "translate y 0 px"),
        (TrivialAugment(), "auto_contrast", (30, 1), "auto contrast"),
        (RandAugment(num_ops=1), "translate_y", (30, 1), "translate y \N{MINUS SIGN}45%"),
        (RandAugment(num_ops=1), "shear_x", (10, 0), "shear x +0.10"),
        (RandAugment(num_ops=1), "posterize", (30, 1), "posterize 4 bits"),
        (RandAugment(num_ops=1), "solarize", (15, 1), "solarize 128"),
    ],
)
def test_words_of_a_policy(policy, operation, drawn, words):
    number = [known.name for known in policy.suite()].index(operation)
    details = {"policy_operation_0": number, "policy_magnitude_0": drawn[0], "policy_sign_0": drawn[1]}
    assert captions.words(Recipe(policy=policy), DRAWN | details, size=32) == ["62% visible", words]


@pytest.mark.parametrize("label", ["add", "add+smooth", "degrade"])
@pytest.mark.parametrize("mix", [None, Mixup(alpha=1.0)])
def test_captions_tell_what_mollification_does_to_the_target(folder, label, mix):
    recipe = Recipe(crop=SoftShift(), mollify=Mollify(label=label), mix=mix)
    rows = show_command.tiles(str(folder), recipe, 32, num=12, versions=1)
    with Loader(folder, recipe, 12, 32, device="cpu", targets="soft", details=True) as loader:
        batch = next(iter(loader))
    unmollified = replace(recipe, mollify=replace(recipe.mollify, noise=0, blur=0, pure_noise=0))
    with Loader(folder, unmollified, 12, 32, device="cpu", targets="soft") as loader:
        whole = next(iter(loader)).targets.sum(dim=1)
    if label == "degrade":
        told = [f"{share:.0%} of the target left" for share in batch.targets.sum(dim=1) / whole]
    else:
        told = [f"extra class {share:.0%} of the target" for share in batch.targets[:, -1] / batch.targets.sum(dim=1)]
    assert len(set(told)) > 4
    for (_, tile), phrase in zip(rows, told, strict=True):
        assert phrase in tile.words


@pytest.mark.parametrize("mix", [Mixup(alpha=1.0), Mosaic(), CutMix(probability=0.5)])
def test_captions_of_mixed_images_name_every_sample_and_its_confidence(folder, mix):
    """The phrases alone give the target, and the number in bold is the mean of theirs."""
    recipe = Recipe(crop=SoftShift(), mix=mix, mollify=Mollify())
    rows = show_command.tiles(str(folder), recipe, 32, num=12, versions=1)
    with Loader(folder, recipe, 12, 32, device="cpu", targets="soft", softening="target") as loader:
        targets, classes = next(iter(loader)).targets.numpy(), loader.classes
    several = 0
    for (plain, tile), target in zip(rows, targets, strict=True):
        matches = [re.fullmatch(r"(\d+)% (\w+) \((?:confidence )?([\d.]+)\)", phrase) for phrase in tile.words]
        shown = [(int(m[1]) / 100, classes.index(m[2]), float(m[3])) for m in matches if m]
        several += bool(shown)
        own = "% visible" if not shown else f"{plain.name}: "
        assert any(own in phrase for phrase in tile.words)
        if not shown:
            assert tile.name == plain.name
            shown = [(1.0, classes.index(plain.name), tile.confidence)]
        else:
            assert tile.name == f"mean of {len(shown)}"
            assert [share for share, _, _ in shown] == sorted((share for share, _, _ in shown), reverse=True)
        assert tile.confidence == pytest.approx(sum(share * kept for share, _, kept in shown), abs=0.03)
        expected = np.zeros(3)
        for share, label, kept in shown:
            expected += share * np.where(np.arange(3) == label, kept, (1 - kept) / 2)
        np.testing.assert_allclose(target, expected, atol=0.03)  # captions round to whole percents
    assert several >= 4


def test_a_mixed_image_tells_its_own_crop_from_what_was_done_to_all_of_it():
    recipe = Recipe(mix=Mixup(), mollify=Mollify())
    details = DRAWN | {"flipped": True, "mollify_role": np.str_("blur"), "mollify_strength": 0.5}
    parts = [captions.Part("worm", 0.14, 0.61), captions.Part("tiger", 0.86, 0.7)]
    assert captions.words(recipe, details, size=32, parts=parts) == [
        "86% tiger (confidence 0.70)",
        "14% worm (0.61)",
        "blur t = 0.50",
        "worm: 62% visible",
        "flipped",
    ]


def test_text_fits_its_tile():
    font = tile_grid._font(13)
    phrases = [
        "62% visible",
        "flipped",
        "translate x \N{MINUS SIGN}45%",
        "posterize 4 bits",
        "an operation of a very long name indeed, anditslastwordis" + "long" * 20,
    ]
    lines = tile_grid.wrapped(phrases, 192)
    assert max(font.getlength(line) for line in lines) <= 192
    assert " ".join(lines).startswith(
        "62% visible, flipped, translate x \N{MINUS SIGN}45%, posterize 4 bits, an operation of a very long name"
    )
    assert lines[-1].startswith("anditslastwordislong")
    assert lines[-1].endswith("…")
    assert len(lines) == 6
    tile = tile_grid.Tile(np.zeros((32, 32, 3), np.uint8), "a class of a name without end", 0.5, phrases)
    pixels = np.asarray(Image.open(io.BytesIO(tile_grid.grid([[tile, tile]], ("one", "two" * 50)))))
    assert (pixels[64 + 230 :, 24 + 224 : 24 + 224 + 36] == 255).all()  # nothing runs out of its column


@pytest.mark.parametrize(
    ("size", "side"),
    [(1, 224), (28, 224), (32, 224), (64, 256), (96, 192), (150, 224), (224, 224), (299, 299), (448, 224)],
)
def test_sides_of_tiles(size, side):
    assert tile_grid.tile_side(size) == side


def test_the_panels_a_recipe_has():
    settings = {"num_classes": 10, "image_size": 32, "epoch": 0, "epochs": 10}
    assert list(recipe_curves.panels(presets.by_name("hard-cifar-ta"), **settings)) == []
    assert recipe_curves.curves(presets.by_name("hard-cifar-ta"), **settings) is None
    assert list(recipe_curves.panels(Recipe(occlude=Occlude()), **settings)) == ["softening"]
    only_noise = Recipe(crop=PadCrop(), mollify=Mollify(blur=0))
    assert list(recipe_curves.panels(only_noise, **settings)) == ["certainty", "strength"]
    crop = SoftShift(sigma=StepDecay(0.3, epoch=8), plateau=0.8)
    everything = Recipe(crop=crop, occlude=Occlude(power=3), noise=AdditiveNoise(), mollify=Mollify(alpha=0.5))
    wanted = ["softening", "noise", "certainty", "blur", "strength", "crop.sigma"]
    panels = recipe_curves.panels(everything, **settings)
    assert list(panels) == wanted
    with Image.open(io.BytesIO(recipe_curves.curves(everything, **settings))) as picture:
        assert picture.size == (3 * 748, 2 * 578)
    lines = {name: drawn(panel) for name, panel in panels.items()}
    # 1/10 + 9/10 (1 - (1 - v/0.8)^2) at v = 0.4, and 1/10 + 9/10 (1 - 0.6^3)
    assert at(lines["softening"][0], 0.4) == pytest.approx(0.1 + 0.9 * 0.75, abs=1e-6)
    assert at(lines["softening"][1], 0.4) == pytest.approx(0.1 + 0.9 * (1 - 0.6**3), abs=1e-6)
    assert at(lines["noise"][0], 0.15) == pytest.approx(0.1 + 0.9 * 0.5, abs=1e-3)  # half of three sigma
    clean, noise, blur = lines["certainty"]
    assert [at(line, 0.5) for line in (clean, noise, blur)] == pytest.approx([1, 0.5, 0.5], abs=1e-6)
    assert at(noise, 1 / 3) == pytest.approx(0.75, abs=2e-3)
    assert at(lines["blur"][0], 0.5) == pytest.approx((0.3 * 32) ** 0.5, rel=1e-5)
    epochs, sigmas = lines["crop.sigma"][0]
    assert set(sigmas[epochs < 8]) == {0.3}
    assert set(sigmas[epochs >= 8]) == {0.0003}


def drawn(panel):
    """The lines of a panel, each as its x and y."""
    axes = Figure().add_subplot()
    panel(axes)
    return [tuple(np.asarray(part, np.float64) for part in line.get_data()) for line in axes.lines]


def at(line, x):
    return float(np.interp(x, *line))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "soft-imagnet"], "recipe must be one of the presets, got 'soft-imagnet'; did you mean"),
        (["--num", "0"], r"num must be in \[1, 64\], got 0"),
        (["--num", "13"], "num must be at most the number of images, 12, got 13"),
        (["--versions", "65"], r"versions must be in \[1, 64\], got 65"),
        (["--seed", "-1"], "seed must not be negative, got -1"),
        (["--epoch", "-1"], "epoch must not be negative, got -1"),
        (["--epochs", "0"], "epochs must be at least 1, got 0"),
        (["--sigma-decay-epochs", "101"], r"sigma-decay-epochs must be in \[0, 100\], got 101"),
        (["--image-size", "0"], "image_size must be .*got 0"),
        (["--image-size", "16", "--recipe", "soft-cifar"], "own size .* choose --recipe soft-imagenet"),
        (["--curves", "c.jpg"], "curves must end in .png, got c.jpg"),
        (["--curves", "/nowhere/c.png"], "curves must lie in a folder that exists, got /nowhere/c.png"),
        (["--recipe", "hard-imagenet", "--curves", "SAME"], "curves must go to a file of their own"),
        (["--recipe", "hard-imagenet", "--curves", "OTHER"], "curves must go with a recipe that has some, got hard-im"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(folder, tmp_path, capsys, arguments, message):
    places = {"SAME": str(tmp_path / "a.png"), "OTHER": str(tmp_path / "c.png")}
    arguments = [places.get(argument, argument) for argument in arguments]
    assert main(["show", str(folder), "-o", str(tmp_path / "a.png"), *arguments]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert re.fullmatch(f"softfeed: error: .*{message}.*\n", captured.err)
    assert not list(tmp_path.iterdir())


def test_data_that_is_not_there(tmp_path, capsys):
    assert main(["show", "/nowhere", "-o", str(tmp_path / "a.png")]) == 2
    assert "DATA must be an image folder or a shard set, got /nowhere" in capsys.readouterr().err
