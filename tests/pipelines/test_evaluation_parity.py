"""The evaluation graph against torchvision's Resize, CenterCrop, ToTensor and Normalize on Pillow images.

Set SOFTFEED_IMAGES to an image folder to run it there; otherwise the photographs of scikit-learn are used.

The tolerance: both resize linearly with antialiasing and round to whole values once per pass, in different orders of
arithmetic, so single pixels differ by one value of 255. At the border Pillow and torch cut the filter off and
renormalise it, DALI repeats the outermost pixel under it, so that where DALI resizes, the two outermost rows and
columns differ by more where a window reaches them.

On a GPU nvJPEG decodes, whose inverse transform and upsampling of chroma are not libjpeg-turbo's. What JPEG allows is
about one value of Y, Cb and Cr each, and chroma counts 1.8 times in blue: 3 values of RGB, 5 where chroma was
interpolated first, and one of the resize. Of these photographs, decoded on a CPU with libjpeg-turbo's own fast
transform, pixels are off by 4, and images by 1.0 on average; chroma that is repeated instead of interpolated makes 18,
and a window half a pixel beside its place 6 on average where there is texture. The same photographs as PNG, which no
GPU decodes, show what the GPU does apart from that: its resize may round the other way.
"""

import os

import numpy as np
import pytest
from PIL import Image
from softfeed.pipelines import Loader, loader, presets, split
from softfeed.pipelines.cropping import resized_on_cpu
from torchvision import transforms

from .conftest import write_folder

BORDER = 2  # output pixels that the filter reaches from the image's border


@pytest.fixture
def folder(photo_folder):
    return os.environ.get("SOFTFEED_IMAGES", photo_folder)


@pytest.fixture(scope="module")
def lossless_folder(photo_folder, tmp_path_factory):
    """The images of `photo_folder` as PNG."""
    root = tmp_path_factory.mktemp("lossless")
    paths = {f"{path.parent.name}/{path.stem}.png": path for path in photo_folder.rglob("*.jpg")}
    return write_folder(root, {name: np.asarray(Image.open(path)) for name, path in paths.items()})


# On a CPU torch resizes between two graphs; with one graph, as on a GPU, DALI resizes. Then the folder, and in values
# of 255 how far a pixel may be off inside of an image, and an image on average.
WAYS = [
    pytest.param("cpu", True, "folder", 1.02, 0.35, id="cpu"),
    pytest.param("cpu", False, "folder", 1.02, 0.35, id="cpu-one-graph"),
    pytest.param("cuda", False, "lossless_folder", 2.02, 0.5, id="cuda-lossless", marks=pytest.mark.gpu),
    pytest.param("cuda", False, "folder", 7.0, 1.5, id="cuda", marks=pytest.mark.gpu),
]


@pytest.mark.parametrize(("device", "two_graphs", "data", "most", "mean"), WAYS)
@pytest.mark.parametrize("resize", [None, 256])
def test_like_torchvision(request, monkeypatch, device, two_graphs, data, most, mean, resize):
    folder = request.getfixturevalue(data)
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
    assert max(inner) < most, f"largest difference inside: {max(inner):.2f} of 255"
    assert max(outer) < (most if two_graphs else 32), f"largest difference at the border: {max(outer):.2f} of 255"
    assert max(means) < mean, f"largest mean difference of an image: {max(means):.3f} of 255"


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
