"""The evaluation graph against torchvision's Resize, CenterCrop, ToTensor and Normalize on Pillow images.

Set SOFTFEED_IMAGES to an image folder to run it there; otherwise the photographs of scikit-learn are used.

The tolerance: both resize linearly with antialiasing and round to whole values once per pass, in different orders of
arithmetic, so single pixels differ by one value of 255. At the border Pillow and torch cut the filter off and
renormalise it, DALI repeats the outermost pixel under it, so that where DALI resizes, the two outermost rows and
columns differ by more where a window reaches them.
"""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from softfeed.pipelines import CenterCrop, Loader, Recipe, TrivialAugment, loader, presets, split
from softfeed.pipelines.cropping import resized_on_cpu
from softfeed.pipelines.draws import Draws
from softfeed.pipelines.plan import GraphWork, plan
from torchvision import transforms
from torchvision.transforms import functional

from .conftest import write_folder

BORDER = 2  # output pixels that the filter reaches from the image's border


@pytest.fixture
def folder(photo_folder):
    return os.environ.get("SOFTFEED_IMAGES", photo_folder)


# on a CPU torch resizes between two graphs; with one graph, as on a GPU, DALI resizes
WAYS = [
    pytest.param("cpu", True, id="cpu"),
    pytest.param("cpu", False, id="cpu-one-graph"),
    pytest.param("cuda", False, id="cuda", marks=pytest.mark.gpu),
]


@pytest.mark.parametrize(("device", "two_graphs"), WAYS)
@pytest.mark.parametrize("resize", [None, 256])
def test_like_torchvision(folder, monkeypatch, device, two_graphs, resize):
    monkeypatch.setattr(loader, "in_two_graphs", lambda recipe, device: two_graphs)
    recipe = presets.evaluation(resize=resize)
    reference = transforms.Compose(
        [
            transforms.Resize(resize or 224),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(recipe.normalize.mean, recipe.normalize.std),
        ]
    )
    values = 255 * np.array(recipe.normalize.std)[:, None, None]
    means, inner, outer = [], [], []
    with Loader(folder, recipe, 16, device=device, index=True) as played:
        for images, _, _, index in played:
            for image, position in zip(images.cpu(), index.tolist(), strict=True):
                with Image.open(played.source(position)) as opened:
                    expected = reference(opened.convert("RGB"))
                difference = abs(image - expected).numpy() * values
                means.append(difference.mean())
                inner.append(difference[:, BORDER:-BORDER, BORDER:-BORDER].max())
                outer.append(difference.max())
        assert len(means) == played.num_samples
    # the decoder of a GPU may differ from Pillow's by a value or two where chroma is subsampled
    tolerance = 1.02 if device == "cpu" else 4.0
    assert max(inner) < tolerance, f"largest difference inside: {max(inner):.2f} of 255"
    assert max(outer) < (tolerance if two_graphs else 32), f"largest difference at the border: {max(outer):.2f} of 255"
    assert max(means) < 0.35, f"largest mean difference of an image: {max(means):.3f} of 255"


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 100))
def test_whole_images_are_cut_where_torchvision_cuts_them(height, width, more):
    """For both ways on from the resize, of which one counts in shares of what is free."""
    size = 64
    ratio = max(height, width) / min(height, width)
    crop, shape = CenterCrop(size + more), (np.array([height]), np.array([width]))
    placed, canvas = (
        plan(
            Recipe(crop=crop, policy=policy),
            Draws(0, 0, 0, 1),
            shape,
            size=size,
            epoch=0,
            work=GraphWork(whole_images=True),
        ).inputs
        for policy in (None, TrivialAugment())
    )
    resized = placed["resized"][0]
    if ratio * (size + more) / size > 64:  # not in one piece
        assert resized.tolist() == [size, size]
        assert canvas["canvas_start"].tolist() == [[0, 0]]
        return
    assert placed["extent"].tolist() == [[height, width]]
    expected = functional.resize(torch.empty(1, height, width, device="meta"), size + more).shape[1:]
    assert resized.tolist() == list(expected)
    start = [round((side - size) / 2.0) for side in expected]
    assert canvas["canvas_start"].tolist() == [start]
    assert np.rint(placed["position"] * (resized - size)).tolist() == [start]


@pytest.mark.parametrize("shape", [(3, 2000), (2000, 3)])
def test_a_very_long_image_is_not_resized_whole(tmp_path, monkeypatch, shape):
    """It would become 149,333 pixels long. What it is cut to is near what one graph gives."""
    ramp = np.linspace(0, 255, max(shape)).reshape([-1 if side > 3 else 1 for side in shape])
    pixels = np.broadcast_to(ramp[..., None], (*shape, 3)).astype(np.uint8)
    data = write_folder(tmp_path / "long", {"a/1.png": pixels, "b/1.png": pixels})
    sizes = []

    def watched(image, height, width):
        sizes.append((height, width))
        return resized_on_cpu(image, height, width)

    def played():
        with Loader(data, presets.evaluation(), 2, device="cpu") as long:
            (batch,) = long
            return batch.images

    monkeypatch.setattr(split, "resized_on_cpu", watched)
    images = played()
    assert sizes == [(224, 224)] * 2
    monkeypatch.setattr(loader, "in_two_graphs", lambda recipe, device: False)
    assert (images - played()).abs().max() * 255 * 0.229 < 1.5
