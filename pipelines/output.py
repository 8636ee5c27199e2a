"""How finished images are handed over: their type and their layout in memory.

Normalisation is the graph's last arithmetic, and it writes float32 or float16, channels first or last, by itself: no
pass over the batch comes on top, and it rounds once. DALI has no bfloat16, and steps that run in torch after the graph
need float32 to stay within their bounds; there the graph writes float32 and torch rounds the finished batch on its
device, which reads and writes it once more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from . import checks

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Output:
    """Type and layout of the images that a loader yields.

    Attributes:
        dtype: torch.float32, torch.float16 or torch.bfloat16.
        channels_last: Whether the channels of a pixel lie side by side in memory; the shape is (N, 3, S, S) either way.
    """

    dtype: torch.dtype = torch.float32
    channels_last: bool = False

    def __post_init__(self) -> None:
        checks.choice("dtype", self.dtype, DTYPES)
        checks.choice("channels_last", self.channels_last, (False, True))

    def of_graph(self, *, last: bool) -> Output:
        """What the graph writes.

        Args:
            last: Whether nothing touches the images after the graph.
        """
        half = last and self.dtype == torch.float16
        return Output(torch.float16 if half else torch.float32, self.channels_last)

    def channels_second(self, images: torch.Tensor) -> torch.Tensor:
        """What the graph wrote, (N, 3, S, S) or (N, S, S, 3), as (N, 3, S, S): a view, no copy."""
        return images.permute(0, 3, 1, 2) if self.channels_last else images
