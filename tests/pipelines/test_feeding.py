"""Arrays fed to a graph."""

import numpy as np
from softfeed.pipelines.feeding import shared


def test_images_are_not_copied():
    encoded = [np.arange(count, dtype=np.uint8) for count in (3, 1, 2)]
    fed = shared(encoded)
    assert [np.asarray(image).tolist() for image in fed] == [[0, 1, 2], [0], [0, 1]]
    encoded[1][0] = 9
    assert np.asarray(fed[1]).tolist() == [9]
    raw = np.zeros((2, 4, 5, 3), np.uint8)
    fed = shared(raw)
    raw[1] = 7
    assert np.asarray(fed[1]).shape == (4, 5, 3)
    assert np.asarray(fed[1]).min() == 7
