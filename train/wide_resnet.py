"""Wide residual networks for small images (Zagoruyko & Komodakis, arXiv 1605.07146)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class WideBlock(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and ReLU: the paper's B(3,3), pre-activation."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        same = in_channels == channels and stride == 1
        self.shortcut = None if same else nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, in_channels, H, W] -> [N, channels, H / stride, W / stride]."""
        active = F.relu(self.norm1(x))
        residual = self.conv2(self.dropout(F.relu(self.norm2(self.conv1(active)))))
        return residual + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nn.Module):
    """WRN-depth-width: three groups of 16, 32 and 64 times `width` channels at full, half and quarter size.

    Args:
        num_classes: number of logits.
        depth: number of convolutions, 6 n + 4 for n blocks a group.
        width: widening factor k of the paper, at least 1.
        dropout: rate inside each block, in [0, 1); the paper's plain networks use 0.

    Raises:
        ValueError: if `depth` or `width` is not possible.
    """

    def __init__(self, num_classes: int, *, depth: int = 28, width: int = 10, dropout: float = 0.0) -> None:
        super().__init__()
        check_wide_resnet(depth=depth, width=width)
        blocks: list[nn.Module] = []
        channels = 16
        for group in range(3):
            for block in range((depth - 4) // 6):
                stride = 2 if group > 0 and block == 0 else 1
                blocks.append(WideBlock(channels, 16 * width << group, stride=stride, dropout=dropout))
                channels = 16 * width << group
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[N, 3, S, S] -> logits [N, num_classes]."""
        features = F.relu(self.norm(self.blocks(self.stem(images))))
        return self.head(features.mean(dim=(2, 3)))


def check_wide_resnet(*, depth: int, width: int) -> None:
    """Raise ValueError unless `depth` is 6 n + 4 with n >= 1 and `width` is at least 1."""
    if depth < 10 or depth % 6 != 4:
        raise ValueError(f"depth must be 6 n + 4 with n >= 1 (10, 16, 22, 28, 34, 40, ...), got {depth}")
    if width < 1:
        raise ValueError(f"width must be at least 1, got {width}")
