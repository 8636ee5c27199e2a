"""The blur against its definition: damped DCT coefficients, by scipy in float64."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.fft import dctn, idctn
from softfeed.pipelines import batch_blur
from softfeed.pipelines.batch_blur import BatchBlur
from softfeed.pipelines.blur import decays, kernels
from softfeed.pipelines.mollify import strengths

from .blurred import check, images_of, one_by_one


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


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 64), (224, 224), (40, 96), (1, 7)])
def test_bound_holds_over_the_whole_schedule(way, height, width):
    levels = np.unique(np.linspace(0, 255, 24).astype(int))
    check(way, images_of(height, width, len(levels)), levels)


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
