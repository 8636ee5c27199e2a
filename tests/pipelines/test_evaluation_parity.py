"""The evaluation graph against torchvision's Resize, CenterCrop, ToTensor and Normalize on Pillow images.

Set SOFTFEED_IMAGES to an image folder to run it there; otherwise the photographs of scikit-learn are used.

The tolerance: both resize linearly with antialiasing and round to whole values once per pass, in different orders of
arithmetic, so single pixels differ by one value of 255. At the border Pillow cuts the filter off and renormalises it,
DALI repeats the outermost pixel under it, so the two outermost rows and columns differ by more where a window
reaches them.
"""

import os

import numpy as np
import pytest
from PIL import Image
from softfeed.pipelines import Loader, presets
from torchvision import transforms

BORDER = 2  # output pixels that the filter reaches from the image's border


@pytest.fixture
def folder(photo_folder):
    return os.environ.get("SOFTFEED_IMAGES", photo_folder)


@pytest.mark.parametrize("resize", [None, 256])
def test_like_torchvision(folder, device, resize):
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
    with Loader(folder, recipe, 16, device=device, index=True) as loader:
        for images, _, _, index in loader:
            for image, position in zip(images.cpu(), index.tolist(), strict=True):
                with Image.open(loader.source(position)) as opened:
                    expected = reference(opened.convert("RGB"))
                difference = abs(image - expected).numpy() * values
                means.append(difference.mean())
                inner.append(difference[:, BORDER:-BORDER, BORDER:-BORDER].max())
                outer.append(difference.max())
        assert len(means) == loader.num_samples
    # the decoder of a GPU may differ from Pillow's by a value or two where chroma is subsampled
    tolerance = 1.02 if device == "cpu" else 4.0
    assert max(inner) < tolerance, f"largest difference inside: {max(inner):.2f} of 255"
    assert max(outer) < 32, f"largest difference at the border: {max(outer):.2f} of 255"
    assert max(means) < 0.35, f"largest mean difference of an image: {max(means):.3f} of 255"
