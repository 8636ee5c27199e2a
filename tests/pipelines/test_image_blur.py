"""The ways to blur an image on a CPU: all of them exact, in threads of nobody's, whatever the size and the layout."""

import numpy as np
import pytest
from softfeed.pipelines import image_blur
from softfeed.pipelines.blur import BOUND
from softfeed.pipelines.image_blur import ImageBlur, by_few_frequencies, by_neighbours, by_transform
from softfeed.pipelines.mollify import LEVELS, strengths

from .blurred import check, images_of, one_by_one

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed; it comes with softfeed[test]")
given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies
IMAGE_WAYS = (by_few_frequencies, by_neighbours, by_transform)


@pytest.mark.parametrize("way", IMAGE_WAYS)
@given(height=st.integers(1, 150), width=st.integers(1, 150), level=st.integers(0, LEVELS - 1))
@settings(max_examples=60)
def test_every_way_is_exact_where_another_one_is_quicker_too(way, height, width, level):
    check(lambda images, levels: one_by_one(images, levels, way), images_of(height, width, 3), np.full(3, level))


@pytest.mark.parametrize("side", [225, 600, 1100])
def test_bound_holds_for_flat_images_of_any_size(side):
    """Rounding errors of equal numbers add up."""
    levels = np.array([70, 110, 125, 160, 190, 255])
    images = np.full((len(levels), 1, side, side), 0.7536, np.float32)
    blurred = check(one_by_one, images, levels)
    assert abs(blurred - np.float32(0.7536)).max() < BOUND / 2


@pytest.mark.parametrize("level", [90, 130, 220])
def test_images_with_channels_last_are_blurred_alike_and_as_matrices(level, monkeypatch):
    matmul = np.matmul

    def checked(left, right, out):
        for factor in (left, right, out):
            assert factor.itemsize in factor.strides[-2:], "numpy may do it in loops of its own"
        return matmul(left, right, out=out)

    monkeypatch.setattr(image_blur.np, "matmul", checked)
    image = images_of(96, 96, 3)[0]
    last = np.ascontiguousarray(image.transpose(1, 2, 0)).transpose(2, 0, 1)
    blur = ImageBlur(96, 96, strengths())
    blur(image, level)
    blur(last, level)
    np.testing.assert_array_equal(last, image)
    assert last.strides[0] == last.itemsize


@pytest.mark.parametrize("side", [224, 384])
def test_each_way_is_the_quickest_for_some_strengths(side):
    ways = ImageBlur(side, side, strengths()).ways
    assert ways[0] is by_transform, "the narrowest reaches far"
    assert ways[100] is by_neighbours
    assert ways[-1] is by_few_frequencies, "the widest leaves few frequencies"


def test_small_images_are_never_worth_a_transform():
    assert set(ImageBlur(32, 32, strengths()).ways) == {by_neighbours, by_few_frequencies}


@pytest.mark.parametrize("side", [224, 512, 1100])
def test_no_product_is_so_large_that_it_starts_threads(side, monkeypatch):
    sizes, matmul = [], np.matmul

    def counted(left, right, out):
        sizes.append(left.shape[-2] * left.shape[-1] * right.shape[-1])
        return matmul(left, right, out=out)

    monkeypatch.setattr(image_blur.np, "matmul", counted)
    blur = ImageBlur(side, side, strengths())
    for level in [level for level, way in enumerate(blur.ways) if way is not by_transform][:: side // 40]:
        blur(np.zeros((1, side, side), np.float32), level)
    assert max(sizes) <= 1 << 18, "OpenBLAS takes more threads for more"
    assert np.mean(sizes) > 1 << 16, "small products take longer"
