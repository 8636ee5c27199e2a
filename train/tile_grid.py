"""A labelled grid of images as PNG: a row for each image, a column for each version of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .diagram import GRID, INK, SOFT

if TYPE_CHECKING:
    from PIL.Image import Image as Picture
    from PIL.ImageDraw import ImageDraw
    from PIL.ImageFont import FreeTypeFont

SIDE = 224  # pixels of a tile that cannot be enlarged by a whole factor
SIDES = (192, 320)  # between which a whole factor is good enough
MARGIN, GAP, ASIDE = 24, 16, 36  # pixels: around the grid, between tiles, behind the first column
HEADING, CAPTION, LINE = 40, 14, 18  # heights in pixels: above the grid, between tile and text, of a line
_DIM = "#5b6570"


@dataclass(frozen=True)
class Tile:
    """One image of the grid.

    Attributes:
        image: uint8 (S, S, 3).
        name: What it shows, or of how many samples the confidence is the mean.
        confidence: What its label keeps, in [0, 1].
        words: What was done to it, phrase by phrase.
    """

    image: np.ndarray
    name: str
    confidence: float
    words: Sequence[str]


def tile_side(size: int) -> int:
    """Pixels a side of the tiles for images of `size` pixels: a whole multiple where one is near `SIDE`."""
    side = size * max(1, round(SIDE / size))
    return side if SIDES[0] <= side <= SIDES[1] else SIDE


def grid(rows: Sequence[Sequence[Tile]], headings: tuple[str, str]) -> bytes:
    """The grid as PNG; the first column stands a little aside.

    Args:
        rows: Tiles, as many in each row, all of one size.
        headings: Above the first column, and above the others.
    """
    from PIL import Image, ImageDraw

    side = tile_side(len(rows[0][0].image))
    lefts = [MARGIN + column * (side + GAP) + (ASIDE - GAP) * (column > 0) for column in range(len(rows[0]))]
    texts = [[wrapped(tile.words, side) for tile in row] for row in rows]
    heights = [side + CAPTION + LINE * (1 + max(map(len, row))) + GAP for row in texts]
    picture = Image.new("RGB", (lefts[-1] + side + MARGIN, MARGIN + HEADING + sum(heights)), "white")
    draw = ImageDraw.Draw(picture)
    for left, heading, room in zip(lefts, headings, (side, picture.width - MARGIN - lefts[1]), strict=False):
        draw.text((left, MARGIN), _shortened(heading, room, _font(15, bold=True)), INK, _font(15, bold=True))
    top = MARGIN + HEADING
    for row, lines, height in zip(rows, texts, heights, strict=True):
        for left, tile, text in zip(lefts, row, lines, strict=True):
            picture.paste(_enlarged(tile.image, side), (left, top))
            draw.rectangle((left - 1, top - 1, left + side, top + side), outline=GRID)
            _write(draw, tile, text, left=left, top=top + side, side=side)
        top += height
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def wrapped(words: Sequence[str], width: int) -> list[str]:
    """Phrases joined by commas into lines of at most `width` pixels; a phrase is broken only if it is longer."""
    lines: list[str] = []
    for phrase in words:
        joined = f"{lines[-1]}, {phrase}" if lines else ""
        if lines and _font(13).getlength(joined + ",") <= width:
            lines[-1] = joined
        else:
            lines[-1:] = [line + "," for line in lines[-1:]]
            lines += _broken(phrase, width - 5)
    return lines


def _broken(phrase: str, width: float) -> list[str]:
    """A phrase in lines of at most `width` pixels; only a word that is longer is cut off."""
    lines: list[str] = []
    for word in phrase.split(" "):
        joined = f"{lines[-1]} {word}" if lines else ""
        if lines and _font(13).getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(_shortened(word, width, _font(13)))
    return lines


def _write(draw: ImageDraw, tile: Tile, text: Sequence[str], *, left: int, top: int, side: int) -> None:
    """The confidence as a bar and as a number, and the words, below a tile."""
    draw.rectangle((left, top + 4, left + side - 1, top + 7), fill=GRID)
    if tile.confidence > 0:
        draw.rectangle((left, top + 4, left + max(1, round(side * tile.confidence)) - 1, top + 7), fill=SOFT)
    number, bold = f"confidence {tile.confidence:.2f}", _font(13, bold=True)
    length = bold.getlength(number)
    draw.text((left, top + CAPTION), number, INK, bold)
    name = _shortened(tile.name, side - length - 10, _font(13))
    draw.text((left + side - _font(13).getlength(name), top + CAPTION), name, INK, _font(13))
    for number, line in enumerate(text, start=1):
        draw.text((left, top + CAPTION + number * LINE), line, _DIM, _font(13))


def _shortened(text: str, width: float, font: FreeTypeFont) -> str:
    """As much of a text as fits, with an ellipsis where it ends early."""
    short = text
    while short and font.getlength(short if short == text else short + "…") > width:
        short = short[:-1]
    return text if short == text else short.rstrip() + "…"


def _enlarged(pixels: np.ndarray, side: int) -> Picture:
    """An image of `side` pixels: every pixel repeated, or, for no whole factor, resampled."""
    from PIL import Image

    image = Image.fromarray(pixels)
    way = Image.Resampling.LANCZOS if side % len(pixels) else Image.Resampling.NEAREST
    return image.resize((side, side), way)


@cache
def _font(height: int, *, bold: bool = False) -> FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib, so that the pictures are the same everywhere."""
    import matplotlib
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, height)
