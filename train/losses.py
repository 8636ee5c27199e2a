"""Losses that use the confidence of each sample (SA section 4.2, Eqs. 4 to 6, Listing 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..softops import soft_targets

METHODS = ("plain", "target", "target-weight", "weight")


@dataclass(frozen=True)
class SoftLoss:
    """`mean_i w_i * KL(q_i || softmax(z_i))` over a batch of logits z.

    | method          | target q                | weight w   | source                 |
    | plain           | one-hot                 | 1          | cross-entropy          |
    | target          | confidence on the label | 1          | SA Eq. 4               |
    | weight          | one-hot                 | confidence | SA Eq. 5               |
    | target-weight   | confidence on the label | confidence | SA Eq. 6 and Listing 2 |

    KL and cross-entropy differ by a constant in z, so the gradient is that of cross-entropy; for one-hot
    targets the values agree as well.

    Attributes:
        method: one of `METHODS`.
        label_smoothing: alpha in [0, 1): the share of every target, soft ones included, that is spread evenly
            over all K classes. With "plain" it is `nn.CrossEntropyLoss(label_smoothing=alpha)` up to the
            constant; SA Eq. 3 spreads its alpha over the K - 1 others, so alpha here is K / (K - 1) times that.

    Raises:
        ValueError: if a setting is outside its range.
    """

    method: str = "target-weight"
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Check the settings."""
        if self.method not in METHODS:
            raise ValueError(f"loss must be one of {', '.join(METHODS)}, got {self.method!r}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must be in [0, 1), got {self.label_smoothing}")

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
        """The loss of one batch.

        Args:
            logits: [N, K], floating.
            labels: [N], int64 in [0, K).
            confidence: [N], floating in [1/K, 1].

        Returns:
            A scalar of the type of `logits`; not negative.

        Raises:
            ValueError: if the shapes do not fit (a confidence of [N, 1] would broadcast to [N, N]).
        """
        if not labels.shape == confidence.shape == logits.shape[:1]:
            shapes = f"{tuple(logits.shape)}, {tuple(labels.shape)}, {tuple(confidence.shape)}"
            raise ValueError(f"logits, labels, confidence must have shapes [N, K], [N], [N], got {shapes}")
        num_classes = logits.shape[1]
        confidence = confidence.to(logits.dtype)
        one = torch.ones_like(confidence)
        on_label = confidence if self.method in ("target", "target-weight") else one
        weight = confidence if self.method in ("weight", "target-weight") else one
        if self.label_smoothing:
            # Certainties multiply (see `softops.combined`), and label smoothing is one more.
            on_label = 1 / num_classes + (on_label - 1 / num_classes) * (1 - self.label_smoothing)
        targets = soft_targets(labels, on_label, num_classes)
        divergence = F.kl_div(F.log_softmax(logits, dim=1), targets, reduction="none").sum(dim=1)
        return (weight * divergence).mean()
