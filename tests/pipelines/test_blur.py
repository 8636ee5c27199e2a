"""The blur against its definition: damped DCT coefficients, by scipy in float64."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.fft import dctn, idctn
from softfeed.pipelines import batch_blur, image_blur
from softfeed.pipelines.batch_blur import BatchBlur
from softfeed.pipelines.blur import BOUND, decays, kernels
from softfeed.pipelines.image_blur import ImageBlur, by_few_frequencies, by_neighbours, by_transform
from softfeed.pipelines.mollify import LEVELS, strengths


def one_by_one(images, levels, way=None):
    """Blurred images; all of them in the same way, if one is named."""
    blur = ImageBlur(*images.shape[2:], strengths())
    if way is not None:
        blur.ways = [way] * LEVELS
    blurred = images.copy()
    for image, level in zip(blurred, levels.tolist(), strict=True):
        blur(image, level)
    return blurred


def as_batch(device):
    def blurred(images, levels):
        blur = BatchBlur(*images.shape[2:], strengths())
        return blur(torch.from_numpy(images).to(device), levels).cpu().numpy()

    return blurred


WAYS = [
    pytest.param(one_by_one, id="images"),
    pytest.param(as_batch("cpu"), id="batch"),
    pytest.param(as_batch("cuda"), id="batch-cuda", marks=pytest.mark.gpu),
]


def definition(image, t):
    """SM's blur of strength t of an image (C, height, width), float64."""
    _, height, width = image.shape
    down, across = np.arange(height)[:, None] / height, np.arange(width)[None] / width
    sigma = 0.3 ** (1 - t) * float(width) ** t
    coefficients = dctn(image.astype(np.float64), type=2, norm="ortho", axes=(1, 2))
    decay = np.exp(-(sigma**2) / 2 * np.pi**2 * (down**2 + across**2))
    return idctn(coefficients * decay, type=2, norm="ortho", axes=(1, 2))


def check(way, images, levels):
    blurred = way(images, levels)
    assert blurred.dtype == np.float32
    for image, result, level in zip(images, blurred, levels, strict=True):
        t = strengths()[level].astype(np.float64)
        assert abs(result - definition(image, t)).max() <= BOUND * abs(image).max(), f"strength {t:.3f}"
    return blurred


def images_of(height, width, count):
    """White noise, which has every frequency, an edge, and a constant."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((count - 2, 3, height, width))
    edge = np.where(np.arange(width) < width // 2, -2.0, 2.5)
    images = np.concatenate([noise, np.broadcast_to(edge, (1, 3, height, width)), np.ones((1, 3, height, width))])
    return images.astype(np.float32)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (224, 224), (40, 96), (1, 7)])
def test_bound_holds_over_the_whole_schedule(way, height, width):
    levels = np.unique(np.linspace(0, 255, 24).astype(int))
    check(way, images_of(height, width, len(levels)), levels)


IMAGE_WAYS = (by_few_frequencies, by_neighbours, by_transform)


@pytest.mark.parametrize("way", IMAGE_WAYS)
@given(height=st.integers(1, 150), width=st.integers(1, 150), level=st.integers(0, LEVELS - 1))
@settings(max_examples=60, deadline=None)
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


def test_bound_holds_under_autocast():
    levels = np.array([10, 100, 250])
    with torch.autocast("cpu", torch.bfloat16):
        check(as_batch("cpu"), images_of(32, 32, 3), levels)


# some versions of torch advise other ways to set it, which older ones do not have
OLD_SETTINGS = pytest.mark.filterwarnings("ignore:Please use the new API settings")


@pytest.fixture(params=["high", "medium"])
def low_precision(request):
    """Has torch compute products of float32 matrices in less, as far as it can on the device."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield
    torch.set_float32_matmul_precision(before)


def in_tf32(left, right, *, matmul=torch.matmul):
    """A product as a GPU's units for TF32 may compute it at worst.

    Of the factors they cut off what goes beyond 11 significant bits. Eight products are summed up at a time, and the
    sum of all so far cut to the 24 bits of float32.
    """
    left, right = ((factor.view(torch.int32) & -0x2000).view(torch.float32).double() for factor in (left, right))
    total = torch.zeros(1, dtype=torch.float64)
    for k in range(0, left.shape[-1], 8):
        total = total + matmul(left[..., k : k + 8], right[..., k : k + 8, :])
        total = (total.view(torch.int64) & -(1 << 29)).view(torch.float64)
    return total.float()


@OLD_SETTINGS
@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 96), (224, 224)])
def test_bound_holds_with_products_in_tf32(low_precision, monkeypatch, height, width):
    levels = np.array([0, 10, 80, 200])
    images = images_of(height, width, 4) + np.float32(1)
    monkeypatch.setattr(torch, "matmul", in_tf32)
    check(as_batch("cpu"), images, levels)
    monkeypatch.setattr(batch_blur, "_in_tf32", lambda: False)
    with pytest.raises(AssertionError, match="strength"):  # else the test shows nothing
        check(as_batch("cpu"), images, levels)


@OLD_SETTINGS
@pytest.mark.gpu
def test_bound_holds_where_the_user_has_set_tf32(low_precision):
    levels = np.unique(np.linspace(0, 255, 24).astype(int))
    check(as_batch("cuda"), images_of(224, 224, len(levels)), levels)


def test_settings_of_torch_for_float32_are_read_and_left_alone():
    """In a process of its own, as what torch was not told once cannot be set again."""
    script = """if True:
        import numpy as np
        import torch
        from softfeed.pipelines.batch_blur import BatchBlur, _in_tf32
        from softfeed.pipelines.mollify import strengths
        settings = torch.backends.cuda.matmul

        def check(expected):
            before = settings.allow_tf32, torch.get_float32_matmul_precision()
            BatchBlur(8, 8, strengths())(torch.ones(2, 3, 8, 8), np.array([3, 200]))
            assert (settings.allow_tf32, torch.get_float32_matmul_precision()) == before
            assert _in_tf32() is expected, before

        check(False)
        for precision in ("high", "medium", "highest"):
            torch.set_float32_matmul_precision(precision)
            check(precision != "highest")
        settings.allow_tf32 = True
        check(True)
        settings.allow_tf32 = False
        check(False)
        if hasattr(settings, "fp32_precision"):
            torch.backends.fp32_precision = "tf32"
            assert not _in_tf32()  # matrices were told another one
            settings.fp32_precision = "none"
            assert _in_tf32()
    """
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True)


def test_what_is_kept_for_products_grows_with_the_side_and_not_with_its_square():
    for side in (224, 512):
        blur = BatchBlur(side, side, strengths())
        blur(torch.zeros(1, 1, side, side), np.zeros(1, np.int64))
        kept = sum(kernel.numel() * kernel.element_size() for kernel in blur._kernels.values())
        assert kept == 4 * 256 * (3 * side - 1)


def test_kernels_make_the_matrix_of_the_definition():
    decay, _ = decays(strengths(), 9, 9)
    kernel = kernels(decay)[100]
    rows, columns = np.indices((9, 9))
    matrix = kernel[rows - columns + 8] + kernel[rows + columns + 1 + 8]
    expected = idctn(decay[100][:, None] * dctn(np.eye(9), norm="ortho", axes=(0,)), norm="ortho", axes=(0,))
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("way", WAYS)
def test_photographs(way, photo_folder):
    from softfeed.pipelines import Loader, Recipe, SoftCrop

    # twenty windows of photographs, normalised, as mollification gets them
    with Loader(photo_folder, Recipe(crop=SoftCrop(sigma=0.1)), 10, device="cpu", last_batch="fill") as loader:
        images = torch.cat([batch.images for _ in range(2) for batch in loader]).numpy()
    blurred = check(way, images, np.linspace(0, 255, 20).astype(int))
    for image, result in zip(images, blurred, strict=True):
        # a blur keeps the mean and only takes from the rest
        np.testing.assert_allclose(result.mean(), image.mean(), atol=1e-5)
        assert result.var() <= image.var() + 1e-5
