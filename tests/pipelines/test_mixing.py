"""Mixed images and their targets: every pixel comes from where the numbers say, and shares are pixel counts."""

import numpy as np
import pytest
import torch
from scipy import stats
from softfeed.pipelines import (
    CopyPaste,
    CutMix,
    Linear,
    Loader,
    Mixup,
    Mollify,
    Mosaic,
    Occlude,
    Recipe,
    SoftCrop,
    SoftShift,
)
from softfeed.pipelines.draws import Draws
from softfeed.pipelines.finishing import Finisher
from softfeed.pipelines.mixing import mix_batch
from softfeed.pipelines.threads import RowThreads

SIZE = 24
BOXES = [CutMix(), CopyPaste(area=(0.0, 1.0), ratio=(0.2, 5.0)), Mosaic(centre=(0.0, 1.0))]


def coordinates(count):
    """Images whose three channels are the sample, the row and the column of a pixel, float32 (count, 3, SIZE, SIZE)."""
    sample, row, column = np.meshgrid(np.arange(count), np.arange(SIZE), np.arange(SIZE), indexing="ij")
    return np.stack([sample, row, column], axis=1).astype(np.float32)


def play(data, recipe, count=37, epochs=1, **options):
    options = {"device": "cpu", "targets": "soft", "last_batch": "fill", "details": True, "index": True, **options}
    with Loader(data, recipe, count, 32, **options) as loader:
        return [batch for _ in range(epochs) for batch in loader], np.array(loader.dataset.targets)


@pytest.mark.parametrize("views", [1, 3])
def test_partners_are_others_of_the_same_view_and_everybody_is_one(views):
    mixing = Mosaic().draw(Draws(0, 0, 50, 40, views), SIZE, 0)
    rows = mixing.row.reshape(views, 40, 4)
    assert (rows[..., 0] == np.arange(40 * views).reshape(views, 40)).all()
    assert (rows // 40 == np.arange(views)[:, None, None]).all(), "a partner is of another view"
    for view in rows:
        assert all(len(set(row)) == 4 for row in view.tolist()), "a sample is there twice"
        for column in view.T:
            assert sorted(column % 40) == list(range(40)), "some sample is nobody's partner"
    assert (mixing.row != Mosaic().draw(Draws(0, 1, 50, 40, views), SIZE, 0).row).any(), "the epoch does not matter"


def test_a_batch_of_one_is_mixed_with_itself():
    images = torch.randn(1, 3, SIZE, SIZE)
    mixing = Mixup().draw(Draws(0, 0, 0, 1), SIZE, 0)
    mixed = Finisher(SIZE, torch.device("cpu"), RowThreads(1)).mix(images.clone(), mixing)
    torch.testing.assert_close(mixed, images)


@pytest.mark.parametrize("mix", BOXES)
def test_every_pixel_comes_from_where_the_box_says_and_shares_are_pixel_counts(device, mix):
    count = 200
    mixing = mix.draw(Draws(3, 0, 0, count), SIZE, 0)
    images = torch.from_numpy(coordinates(count)).to(device)
    mixed = Finisher(SIZE, torch.device(device), RowThreads(2)).mix(images, mixing).cpu().numpy()
    for image, rows, shares, boxes in zip(mixed, mixing.row, mixing.share, mixing.box, strict=True):
        expected = coordinates(rows[0] + 1)[rows[0]]  # the sample's own pixels, unless a box lies on them
        for row, (left, top, width, height, from_left, from_top) in zip(rows, boxes.tolist(), strict=True):
            assert 0 <= left <= left + width <= SIZE
            assert 0 <= top <= top + height <= SIZE
            for y in range(height):
                for x in range(width):
                    expected[:, top + y, left + x] = row, from_top + y, from_left + x
        np.testing.assert_array_equal(image, expected)
        for row, share in zip(rows, shares, strict=True):
            assert share == pytest.approx((image[0] == row).mean(), abs=1e-6)
    assert (mixed[:, 1:] >= 0).all()
    assert (mixed[:, 1:] < SIZE).all(), "a crop reaches out of its image"


@pytest.mark.parametrize("mix", [*BOXES, Mixup(alpha=1.0), Mixup(probability=0.5)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_mixing_row_by_row_and_all_at_once_agree(mix, layout):
    images = torch.randn(30, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=layout)
    mixing = mix.draw(Draws(1, 2, 30, 30), SIZE, 2.5)
    at_once = mix_batch(images, mixing)
    finisher = Finisher(SIZE, torch.device("cpu"), RowThreads(3))
    finisher.mix(
        torch.randn(41, 3, SIZE, SIZE), mix.draw(Draws(0, 0, 0, 41), SIZE, 0)
    )  # leaves parts of its own behind
    by_row = finisher.mix(images.clone(memory_format=torch.preserve_format), mixing)
    torch.testing.assert_close(by_row, at_once, rtol=0, atol=1e-6)
    assert by_row.is_contiguous(memory_format=layout)
    assert at_once.is_contiguous(memory_format=layout)
    assert (by_row != images).any()


def test_a_batch_of_several_sizes_is_mixed_in_place_and_in_its_own_memory():
    """A larger batch than the one before, and a smaller one, as at the end of an epoch that keeps all samples."""
    finisher = Finisher(SIZE, torch.device("cpu"), RowThreads(2))
    for count in (15, 30, 15):
        images = torch.randn(count, 3, SIZE, SIZE)
        mixing = Mosaic().draw(Draws(0, 0, 0, count), SIZE, 0)
        expected, memory = mix_batch(images, mixing), images.data_ptr()
        mixed = finisher.mix(images, mixing)
        assert mixed.data_ptr() == memory, "memory for another batch is new to the process each time"
        torch.testing.assert_close(mixed, expected, rtol=0, atol=0)


def test_mixup_adds_up_with_the_drawn_shares():
    mix = Mixup(alpha=0.4)
    mixing = mix.draw(Draws(0, 0, 0, 20_000), SIZE, 0)
    assert stats.kstest(mixing.share[:, 0], stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    np.testing.assert_allclose(mixing.share.sum(axis=1), 1, rtol=0, atol=1e-6)
    few = mix.draw(Draws(0, 0, 0, 50), SIZE, 0)
    images = torch.randn(50, 3, SIZE, SIZE)
    mixed = Finisher(SIZE, torch.device("cpu"), RowThreads(2)).mix(images.clone(), few).double().numpy()
    x, own = images.double().numpy(), few.share[:, 0].astype(np.float64)[:, None, None, None]
    np.testing.assert_allclose(mixed, own * x + (1 - own) * x[few.row[:, 1]], rtol=0, atol=1e-6)


def test_cutmix_boxes_have_the_papers_area_before_they_are_cut_off():
    mixing = CutMix(alpha=1.0).draw(Draws(0, 0, 0, 20_000), 224, 0)
    width, height = mixing.box[:, 1, 2], mixing.box[:, 1, 3]
    inside = (mixing.box[:, 1, :2] > 0).all(axis=1) & (mixing.box[:, 1, :2] + mixing.box[:, 1, 2:4] < 224).all(axis=1)
    assert (width[inside] == height[inside]).all()
    # side = sqrt(1 - l), l uniform; a side fits inside with probability (1 - side)^2 at least
    side = width[inside] / 224
    centre = mixing.box[inside, 1, :2] + mixing.box[inside, 1, 2:4] // 2
    assert abs(centre.mean() - 112) < 3
    grid = np.linspace(0.01, 0.99, 981)
    density = 2 * grid * (1 - grid) ** 2  # of sides that fit
    cdf = np.concatenate([[0], np.cumsum(density)]) / density.sum()
    assert stats.kstest(side, lambda x: np.interp(x, np.linspace(0.01, 0.99, 982), cdf)).statistic < 0.03


def test_settings_change_over_epochs():
    mix = Mixup(alpha=1.0, probability=Linear(0.0, 1.0, 0, 10))
    shares = [mix.draw(Draws(0, 0, 0, 2000), SIZE, epoch).share[:, 1] for epoch in (0, 5, 10)]
    assert [round(float((share > 0).mean()), 1) for share in shares] == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("mix", [Mixup(alpha=1.0), CutMix(), CopyPaste(), Mosaic()])
def test_targets_are_those_of_every_sample_with_its_share(photo_folder, mix):
    """2,000 samples: each brings the certainty of its own crop and mask, the mixed image that of its mollification."""
    recipe = Recipe(crop=SoftCrop(sigma=0.4), occlude=Occlude(share=(0.0, 0.9)), mix=mix, mollify=Mollify(1, 1, 1, 1))
    batches, labels = play(photo_folder, recipe, count=100, epochs=20)
    for batch in batches:
        drawn = {name: np.asarray(value, np.float64) for name, value in batch.details.items() if value.dtype != "<U10"}
        visible = 1 - (1 - drawn["visibility"]) ** 2
        uncovered = 1 - (drawn["covered"] / 32**2) ** 2
        t, role = drawn["mollify_strength"], batch.details["mollify_role"]
        kept = np.select([role == "clean", role == "noise", role == "blur"], [1, np.cos(t * np.pi / 2) ** 2, 1 - t], 0)
        expected = np.zeros((100, 2))
        for column in range(drawn["mix_share"].shape[1]):
            rows = batch.details["mix_row"][:, column]
            p = 0.5 + 0.5 * (visible * uncovered)[rows] * kept
            own = labels[batch.index.numpy()[rows]]
            q = np.where(np.arange(2) == own[:, None], p[:, None], 1 - p[:, None])
            np.testing.assert_allclose(drawn["mix_certainty"][:, column], 2 * p - 1, rtol=0, atol=1e-6)
            expected += drawn["mix_share"][:, [column]] * p[:, None] * q
        np.testing.assert_allclose(batch.targets.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "mix", [Mixup(probability=0), CutMix(probability=0), CopyPaste(probability=0), Mosaic(probability=0)]
)
def test_nothing_is_mixed_with_probability_0(noise_folder, mix):
    plain, _ = play(noise_folder, Recipe(crop=SoftShift()))
    mixed, _ = play(noise_folder, Recipe(crop=SoftShift(), mix=mix))
    torch.testing.assert_close(mixed[0].images, plain[0].images, rtol=0, atol=0)
    torch.testing.assert_close(mixed[0].targets, plain[0].targets, rtol=0, atol=1e-7)


def test_views_are_mixed_within_themselves(noise_folder):
    recipe = Recipe(crop=SoftShift(sigma=0.01), flip=None, mix=CutMix(), views=2)
    (batch,), _ = play(noise_folder, recipe)
    assert batch.targets.shape == (2, 37, 3)
    assert batch.details["mix_row"].shape == (2, 37, 2)
    assert batch.details["mix_row"].max() == 36
    (plain,), _ = play(noise_folder, Recipe(crop=SoftShift(sigma=0.01), flip=None, views=2))
    for view in range(2):
        for row in range(37):
            left, top, width, height, *_ = batch.details["mix_box"][view, row, 1]
            part = np.s_[:, top : top + height, left : left + width]
            partner = plain.images[view, batch.details["mix_row"][view, row, 1]]
            torch.testing.assert_close(batch.images[view, row][part], partner[part], rtol=0, atol=0)


def test_a_script_that_wants_labels_is_told_to_take_targets(noise_folder):
    for recipe in (Recipe(crop=SoftShift(), mix=Mixup()), Recipe(crop=SoftShift(), mollify=Mollify(label="add"))):
        with pytest.raises(ValueError, match="targets must be 'soft' for a recipe that mixes samples or labels"):
            Loader(noise_folder, recipe, 8, 32, device="cpu")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Mixup(alpha=0), "alpha must be positive, got 0"),
        (lambda: CutMix(alpha=-1), "alpha must be positive, got -1"),
        (lambda: CutMix(probability=1.5), r"probability must be in \[0, 1\], got 1.5"),
        (lambda: CopyPaste(area=(0.5, 0.1)), r"area must be an increasing pair in \[0.0, 1.0\]"),
        (lambda: CopyPaste(ratio=(0, 1)), r"ratio must be an increasing pair"),
        (lambda: Mosaic(centre=(0.2, 1.2)), r"centre must be an increasing pair in \[0.0, 1.0\]"),
    ],
)
def test_bad_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()
