"""Arrays fed to a graph."""

import weakref
from collections import deque

import numpy as np
import pytest
from softfeed.pipelines import Recipe, SoftCrop, SoftShift, runner
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


@pytest.mark.parametrize("prefetch", [1, 2, 3])
@pytest.mark.parametrize("crop", [SoftCrop(), SoftShift()], ids=["resized", "as it is"])
def test_the_graph_is_done_with_what_is_let_go(noise_set, make_loader, monkeypatch, crop, prefetch):
    """Else it would free it in one of its threads, which needs the interpreter's lock for that."""
    watched, alive = {}, []

    def watching(images):
        views = [images.view()] if isinstance(images, np.ndarray) else [image.view() for image in images]
        fed = shared(views[0] if isinstance(images, np.ndarray) else views)
        watched[id(fed)] = [weakref.ref(view) for view in views]
        return fed

    class Watched(deque):
        def append(self, fed):
            if len(self) == self.maxlen:
                references = watched.pop(id(self[0]))
                self.popleft()
                alive.append(sum(reference() is not None for reference in references))
            super().append(fed)

    monkeypatch.setattr(runner, "shared", watching)
    monkeypatch.setattr(runner, "deque", Watched)
    loader = make_loader(noise_set, Recipe(crop=crop), 4, prefetch=prefetch)
    for _ in range(3):
        for _ in loader:
            pass
    assert len(alive) > 10
    assert not any(alive)
