"""Small arrays that go from the host to a GPU.

From ordinary memory a copy waits until the GPU has done all that was queued on the stream before, which in training is
the step before; from pinned memory it is queued like everything else, and the host goes on.
"""

from __future__ import annotations

import numpy as np
import torch


def uploaded(values: np.ndarray | torch.Tensor, device: torch.device) -> torch.Tensor:
    """Values of the host on a device; on the CPU the values themselves, without a copy.

    Nobody waits for the GPU. The pinned memory may be let go here: torch gives it to nobody else before the copy, on
    the device's current stream, is done.

    Args:
        values: Of any type and shape.
        device: Where they go.
    """
    tensor = torch.as_tensor(values)
    return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)
