"""Losses that use the confidence of each sample (SA section 4.2, Eqs. 4 to 6, Listing 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..softops import weighted_targets

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
            over all K classes, an extra one included. With "plain" it is that of `nn.CrossEntropyLoss` up to the
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

    def __call__(
        self, logits: torch.Tensor, labels: torch.Tensor, confidence: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The loss of one batch.

        Args:
            logits: [N, K], floating.
            labels: [N], int64 in [0, K); or, without a confidence, soft targets w * q, [N, K], floating, in which
                `method` has had its say when they were made, and which may have an extra class.
            confidence: [N], floating in [1/K, 1].

        Returns:
            A scalar of the type of `logits`; not negative.

        Raises:
            ValueError: if the shapes do not fit (a confidence of [N, 1] would broadcast to [N, N]).
        """
        if confidence is None:
            return self._of_targets(logits, labels)
        if not labels.shape == confidence.shape == logits.shape[:1]:
            shapes = f"{tuple(logits.shape)}, {tuple(labels.shape)}, {tuple(confidence.shape)}"
            raise ValueError(f"logits, labels, confidence must have shapes [N, K], [N], [N], got {shapes}")
        softening = "none" if self.method == "plain" else self.method
        confidence = confidence.to(logits.dtype)
        return self._of_targets(logits, weighted_targets(labels, confidence, logits.shape[1], softening=softening))

    def _of_targets(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if targets.shape != logits.shape:
            raise ValueError(
                f"targets must have the shape of the logits, {tuple(logits.shape)}, got {tuple(targets.shape)}"
            )
        targets = targets.to(logits.dtype)
        weight = targets.sum(dim=1, keepdim=True)
        if self.label_smoothing:
            targets = targets * (1 - self.label_smoothing) + weight * (self.label_smoothing / logits.shape[1])
        # sum of w q log(q / p) with w q given: log q is log(w q) - log w, and what has no weight has no loss
        log_weight = weight.clamp(min=torch.finfo(weight.dtype).tiny).log()
        divergence = F.kl_div(F.log_softmax(logits, dim=1) + log_weight, targets, reduction="none").sum(dim=1)
        return divergence.mean()
