"""An image folder made longer with links to its own images, so that an epoch has as many batches as it is to have."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..pipelines.shards.sources.folder import scan_image_folder


def some_of(source: Path, most: int) -> list[tuple[Path, str]]:
    """Images of a folder with their classes' names; of more than `most`, as many in even steps over all classes."""
    paths, labels, classes = scan_image_folder(source)
    taken = np.linspace(0, len(paths), min(len(paths), most), endpoint=False).astype(int)
    return [(Path(paths[row]), classes[labels[row]]) for row in taken]


def copies(count: int, least: int) -> int:
    """How many times over `count` images are at least `least`."""
    return -(-least // count)


def repeated(source: Path, folder: Path, *, most: int, least: int) -> Path:
    """An image folder of links to the images of another, each as it is, several times over if there are few.

    Args:
        source: Image folder.
        folder: Where to; new.
        most: How many images to take, see `some_of`; 4,000 photographs stay in a machine's page cache.
        least: How many links there are at least.
    """
    images = some_of(source, most)
    for number, (path, name) in enumerate(images):
        parent, original = folder / name, path.resolve()
        parent.mkdir(parents=True, exist_ok=True)
        for copy in range(copies(len(images), least)):
            (parent / f"{copy}-{number:08d}{path.suffix}").symlink_to(original)
    return folder
