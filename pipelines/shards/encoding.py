"""How a set stores its images: as they came, scaled down, as JPEG of a quality, as plain files, or as pixels."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from .decoding import MAX_PIXELS, PILLOW_ERRORS, PILLOW_FORMATS, Decoded, extension_of, no_warnings
from .oddities import named_extension

SUBSAMPLINGS = {"420": "4:2:0", "422": "4:2:2", "444": "4:4:4"}
QUALITY = 95  # of JPEG unless another is asked for
_LONGEST_JPEG = 65500  # pixels; the format ends at 65,535


class StoredImage(NamedTuple):
    """What goes into a shard: an image file or pixels, its usual extension, its size, and if it was rewritten."""

    content: bytes
    extension: str
    height: int
    width: int
    rewritten: bool


@dataclass(frozen=True)
class Encoding:
    """How images are stored.

    Attributes:
        raw_shape: (height, width) of every image, to store pixels; None to store files.
        resizes: bring raw images of other sizes to that size; if False they are errors.
        max_side: longest side in pixels; larger images are scaled down and rewritten as JPEG. None for any.
        quality: of JPEG, 1 to 100; all images are rewritten with it. None to rewrite only those that must be, with 95.
        subsampling: of JPEG's chroma, one of `SUBSAMPLINGS`; all images are rewritten with it. None for 4:2:0 where
            they must be.
        normalize: rewrite images that decoders may not agree on as plain ones, upright and of three channels: as JPEG
            if they were JPEG or are named so, else as PNG.
        is_array: images are pixels that never were files; they are stored as PNG.
    """

    raw_shape: tuple[int, int] | None = None
    resizes: bool = False
    max_side: int | None = None
    quality: int | None = None
    subsampling: str | None = None
    normalize: bool = False
    is_array: bool = False

    @property
    def rewrites_all(self) -> bool:
        """Whether every image becomes another file."""
        return self.quality is not None or self.subsampling is not None or self.is_array

    @property
    def needs_pixels(self) -> bool:
        """Whether images must be decoded for their pixels, not only to see if they do."""
        return self.rewrites_all or self.normalize or self.raw_shape is not None or self.max_side is not None

    def store(self, image: bytes, decoded: Decoded, odd: Sequence[str], name: str) -> StoredImage:
        """What a shard stores of an image.

        Args:
            image: content of its file.
            decoded: its size, and its pixels if they are needed.
            odd: what is unusual about it.
            name: original name.

        Raises:
            ValueError: if a raw image has another size and is not to be resized.
        """
        if self.raw_shape is not None:
            return self._raw(decoded, name)
        height, width = self._scaled(decoded)
        smaller = (height, width) != (decoded.height, decoded.width)
        if not (smaller or self.rewrites_all or (odd and self.normalize)):
            return StoredImage(image, extension_of(image) or "img", decoded.height, decoded.width, rewritten=False)
        picture = _picture(decoded)
        if smaller:
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        content, extension = self._encoded(picture, self._target(image, name, smaller=smaller))
        return StoredImage(content, extension, height, width, rewritten=True)

    def _raw(self, decoded: Decoded, name: str) -> StoredImage:
        height, width = self.raw_shape or (0, 0)
        if (decoded.height, decoded.width) == (height, width) and decoded.pixels is not None:
            return StoredImage(decoded.pixels, "rgb", height, width, rewritten=False)
        if not self.resizes:
            raise ValueError(
                f"raw images must all have one size, {height}x{width} (height x width), got "
                f"{decoded.height}x{decoded.width} in {name}; convert without --raw, or have them resized: "
                f"--raw {height}x{width}"
            )
        picture = _picture(decoded).resize((width, height), Image.Resampling.LANCZOS)
        return StoredImage(picture.tobytes(), "rgb", height, width, rewritten=True)

    def _scaled(self, decoded: Decoded) -> tuple[int, int]:
        longest = max(decoded.height, decoded.width)
        if self.max_side is None or longest <= self.max_side:
            return decoded.height, decoded.width
        scale = self.max_side / longest
        return max(1, round(decoded.height * scale)), max(1, round(decoded.width * scale))

    def _target(self, image: bytes, name: str, *, smaller: bool) -> str:
        """Extension of the format to write."""
        if self.quality is not None or self.subsampling is not None or (smaller and not self.is_array):
            return "jpg"
        return "jpg" if extension_of(image) == "jpg" or named_extension(name) == "jpg" else "png"

    def _encoded(self, picture: Image.Image, extension: str) -> tuple[bytes, str]:
        file = io.BytesIO()
        if extension == "png" or max(picture.size) > _LONGEST_JPEG:
            picture.save(file, "PNG")
            return file.getvalue(), "png"
        subsampling = SUBSAMPLINGS[self.subsampling or "420"]
        picture.save(file, "JPEG", quality=self.quality or QUALITY, subsampling=subsampling)
        return file.getvalue(), "jpg"


def _picture(decoded: Decoded) -> Image.Image:
    return Image.frombuffer("RGB", (decoded.width, decoded.height), decoded.pixels or b"", "raw", "RGB", 0, 1)


def decoded_by_pillow(image: bytes) -> Decoded | None:
    """Pixels of an image that DALI does not decode, upright, of the first frame; None if Pillow does not either.

    Images of more than `MAX_PIXELS` are refused before anything is decoded, and formats other than `PILLOW_FORMATS`.
    """
    if _webp_pixels(image) > MAX_PIXELS:  # Pillow sets memory aside for a WebP canvas when it opens it
        return None
    try:
        with no_warnings(), Image.open(io.BytesIO(image), formats=PILLOW_FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                return None
            upright: Any = ImageOps.exif_transpose(opened)
            if upright.mode.startswith("I;16"):
                upright = upright.point(lambda value: value / 256, "L")
            elif upright.mode in ("I", "F"):
                return None  # of no known range
            picture = upright.convert("RGB")
            return Decoded(picture.height, picture.width, picture.tobytes())
    except PILLOW_ERRORS:
        return None


def _webp_pixels(image: bytes) -> int:
    if image[8:16] != b"WEBPVP8X" or len(image) < 30:
        return 0
    width, height = (int.from_bytes(image[start : start + 3], "little") + 1 for start in (24, 27))
    return width * height
