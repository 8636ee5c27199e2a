"""Accuracy and calibration from sums that add up over batches and ranks.

torchmetrics has all four numbers, but keeps its calibration bins to itself, and puts a confidence of exactly 1 in a bin
of its own; here the bins are the state: they add up over ranks in one all-reduce, and are what a reliability
diagram shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .distributed import Process, sum_over_ranks


@dataclass(frozen=True)
class ReliabilityBin:
    """The samples whose predicted confidence lies in `(lower, upper]`.

    Attributes:
        lower, upper: edges of the bin, in [0, 1].
        count: number of samples.
        confidence: their mean confidence in [0, 1]; 0 when there are none.
        accuracy: share of them predicted correctly in [0, 1]; 0 when there are none.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Scores:
    """What one evaluation found.

    Attributes:
        num_samples: samples scored, over all ranks.
        top1, top5: share in [0, 1] whose label is the first, or among the first five, of the predictions (all
            of them when there are fewer than five classes).
        nll: mean negative log-likelihood of the label, in nats.
        ece: expected calibration error in [0, 1] (SA Eq. 8).
        bins: the reliability diagram, from low to high confidence.
    """

    num_samples: int
    top1: float
    top5: float
    nll: float
    ece: float
    bins: tuple[ReliabilityBin, ...]

    def summary(self) -> dict[str, float]:
        """The four numbers by name."""
        return {"top1": self.top1, "top5": self.top5, "nll": self.nll, "ece": self.ece}


class ScoreSums:
    """Running sums of an evaluation, kept in float64 on one device.

    Args:
        num_bins: number M of equal-width confidence bins over (0, 1], at least 1 (SA Eq. 8: 10).
        device: where the logits will be.
    """

    def __init__(self, *, num_bins: int = 10, device: torch.device | str = "cpu") -> None:
        if num_bins < 1:
            raise ValueError(f"num_bins must be at least 1, got {num_bins}")
        self.num_bins = num_bins
        self._edges = torch.linspace(0, 1, num_bins + 1, dtype=torch.float64, device=device)
        # Row 0: top-1, top-5, NLL. Rows 1 to M: count, confidence, correct of each bin.
        self._sums = torch.zeros(num_bins + 1, 3, dtype=torch.float64, device=device)

    def update(self, logits: torch.Tensor, labels: torch.Tensor, counts: torch.Tensor | None = None) -> None:
        """Add one batch: logits [N, K] (any floating type), labels [N] int64 in [0, K).

        `counts`, bool [N], tells which samples count; None for all.
        """
        weight = torch.ones_like(labels) if counts is None else counts
        weight = weight.double()[:, None]
        logits = logits.float()
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        nll = F.cross_entropy(logits, labels, reduction="none")
        overall = (torch.stack([top[:, 0], top.any(dim=1), nll]).double() * weight.T).sum(dim=1)
        confidence = logits.softmax(dim=1).amax(dim=1).double()
        index = torch.bucketize(confidence, self._edges[1:-1])  # (lower, upper]; 1 joins the last bin
        # A product with the one-hot bins, and not index_add: sums on a GPU then repeat bit for bit.
        member = F.one_hot(index, self.num_bins).double()
        columns = torch.stack([torch.ones_like(confidence), confidence, top[:, 0].double()], dim=1)
        self._sums += torch.cat([overall[None], member.T @ (columns * weight)])

    def scores(self, process: Process | None = None) -> Scores:
        """The scores over all ranks, by one all-reduce.

        Raises:
            ValueError: if no rank has seen a sample.
        """
        sums = self._sums if process is None else sum_over_ranks(self._sums, process)
        (top1, top5, nll), *rows = sums.tolist()
        total = sum(count for count, _, _ in rows)
        if not total:
            raise ValueError("data must hold at least one sample to score, got none")
        edges = self._edges.tolist()
        return Scores(
            num_samples=int(total),
            top1=top1 / total,
            top5=top5 / total,
            nll=nll / total,
            ece=sum(abs(correct - confidence) for _, confidence, correct in rows) / total,
            bins=tuple(
                ReliabilityBin(lower, upper, int(n), confidence / max(n, 1), correct / max(n, 1))
                for lower, upper, (n, confidence, correct) in zip(edges[:-1], edges[1:], rows, strict=True)
            ),
        )
