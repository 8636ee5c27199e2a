"""Decoding the visible part of each image, and the settings of the GPU's decoder."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import torch

from . import checks
from .roi_probe import left_to_the_cpu, roi_decode_works
from .sources import Source

HW_DECODER_LOAD = 0.65  # DALI's default, used until `softfeed tune` finds better

_MEMORY_SHARE = 8  # preallocation may take up to one part in so many of a GPU's memory


@dataclass(frozen=True)
class Decoder:
    """How images are decoded. But for the last, none of these settings changes what comes out.

    Attributes:
        device_id: GPU to decode on, or None for the CPU.
        hw_decoder_load: Share of the images that go to the GPU's JPEG engines, in [0, 1]; others go to its CUDA cores.
        roi: Whether the decoder gets the visible part only, or decodes whole images that are cut afterwards.
        largest: Greatest height and width of the images in pixels, for which the JPEG engines' memory is allocated at
            once instead of growing with each larger image; (0, 0) where not known or too large to set aside.
        fancy_upsampling: Whether a GPU interpolates subsampled chroma, as a CPU always does, or repeats it.
    """

    device_id: int | None = None
    hw_decoder_load: float = HW_DECODER_LOAD
    roi: bool = True
    largest: tuple[int, int] = (0, 0)
    fancy_upsampling: bool = True

    def __post_init__(self) -> None:
        checks.share("hw_decoder_load", self.hw_decoder_load)

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of DALI's decoders."""
        if self.device_id is None:
            return {"device": "cpu"}
        height, width = self.largest
        return {
            "device": "mixed",
            "jpeg_fancy_upsampling": self.fancy_upsampling,
            "hw_decoder_load": self.hw_decoder_load,
            "preallocate_height_hint": height,
            "preallocate_width_hint": width,
        }


def decoder_for(
    source: Source,
    device: torch.device,
    images: int,
    *,
    hw_decoder_load: float,
    roi_decode: bool | None,
    fancy_upsampling: bool = True,
) -> Decoder:
    """The decoder for a data set on a device.

    Args:
        source: The data set.
        device: Where images are decoded.
        images: How many are decoded together.
        hw_decoder_load: See `Decoder`.
        roi_decode: Whether only visible parts are decoded; None for where that works, which is tried if need be.
        fancy_upsampling: See `Decoder`.

    Raises:
        ValueError: if a setting is out of range, or a CPU should repeat chroma.
    """
    checks.choice("roi_decode", roi_decode, (None, False, True))
    checks.choice("fancy_upsampling", fancy_upsampling, (False, True))
    raw = source.raw_shape is not None
    if raw or device.type == "cpu":
        if not (raw or fancy_upsampling):
            raise ValueError("fancy_upsampling must be True on a CPU, whose decoder always interpolates, got False")
        return Decoder(None, hw_decoder_load, roi_decode is not False)
    if roi_decode is None:
        roi = roi_decode_works(device, fancy_upsampling=fancy_upsampling)
    else:
        roi = roi_decode
        if roi and (slow := left_to_the_cpu(fancy_upsampling=fancy_upsampling)):
            warnings.warn(f"decoding parts of images is slow: {slow}", RuntimeWarning, stacklevel=3)
    largest = int(source.height.max()), int(source.width.max())
    memory = torch.cuda.get_device_properties(device).total_memory
    return Decoder(device.index, hw_decoder_load, roi, preallocated(largest, images, memory), fancy_upsampling)


def preallocated(largest: tuple[int, int], batch_size: int, memory: int) -> tuple[int, int]:
    """Size of images to set memory aside for: the largest, or (0, 0) if a batch of those would take too much.

    Args:
        largest: Greatest height and width in pixels; (0, 0) if not known.
        batch_size: Images that are decoded together.
        memory: Memory of the GPU in bytes.
    """
    height, width = largest
    return largest if 3 * height * width * batch_size * _MEMORY_SHARE <= memory else (0, 0)


def visible_part(source: Any, inputs: dict[str, Any], decoder: Decoder | None) -> Any:
    """Decode, or without a decoder cut from raw pixels, the rectangle (`start`, `extent`) of each image: uint8 HWC."""
    from nvidia.dali import fn

    rectangle = {"start": inputs["start"], "shape": inputs["extent"], "axis_names": "HW"}
    if decoder is None:
        return fn.slice(source, **rectangle)
    if decoder.roi:
        return fn.decoders.image_slice(source, **decoder.settings, **rectangle)
    # Cutting takes a copy, but unlike a resize with a region of interest, whose filter reads beside the region, it
    # leaves exactly the pixels that the decoder of parts gives.
    return fn.slice(fn.decoders.image(source, **decoder.settings), **rectangle)
