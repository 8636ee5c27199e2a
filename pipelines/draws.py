"""Random draws as pure functions of (seed, epoch, purpose, position).

A counter-based generator makes a sample's draws depend on nothing but its place in the epoch: not on the batch
size, the number of ranks, the prefetch depth, or where a run was resumed. Nothing random lives in the DALI graph.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import special

# 64-bit words that Philox makes per counter step
_WORDS = 4


@lru_cache(maxsize=256)
def _key(seed: int, epoch: int, purpose: str) -> np.ndarray:
    return np.random.SeedSequence([seed, epoch, zlib.crc32(purpose.encode())]).generate_state(2, np.uint64)


def _generator(seed: int, epoch: int, purpose: str, counter: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(key=_key(seed, epoch, purpose), counter=counter))


def permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    """A random order of `length` samples, int64 of shape (length,), the same on every rank."""
    return _generator(seed, epoch, "order", 0).permutation(length)


class Draws:
    """The draws of the samples at positions [start, start + samples) of an epoch's global order.

    Args:
        seed: The run's seed, >= 0.
        epoch: Number of the epoch, >= 0.
        start: First position, >= 0.
        samples: Number of samples, >= 1.
        views: Versions of each sample, >= 1, each with draws of its own. The first has those of `views=1`.
        rows: Which of the samples draw, int64 (M,) in [0, samples); None for all. The others' draws stay as they are.

    Attributes:
        views: Versions of each sample.
        count: Columns of the draws: the samples' first version, then their second, and so on.
    """

    def __init__(
        self, seed: int, epoch: int, start: int, samples: int, views: int = 1, *, rows: np.ndarray | None = None
    ) -> None:
        self._seed, self._epoch, self._start, self._samples = seed, epoch, start, samples
        self._rows, self.views = rows, views
        self.count = (samples if rows is None else len(rows)) * views

    def uniform(self, purpose: str, width: int) -> np.ndarray:
        """Uniform draws in [0, 1), float32 of shape (width, count): one row per quantity, one column per sample.

        Args:
            purpose: What the draws are for; each purpose has its own stream.
            width: Draws per sample, >= 1.
        """
        return self._uniform64(purpose, width).astype(np.float32).clip(max=np.float32(1 - 2**-24))

    def normal(self, purpose: str, width: int, *, limit: float = np.inf) -> np.ndarray:
        """Standard normal draws truncated to [-limit, limit], float32 of shape (width, count).

        The distribution function is inverted, which gives the same distribution as redrawing until a draw fits.
        """
        below = special.ndtr(-limit)
        # + half a step: the draw may be 0, where the inverse is -infinity
        u = self._uniform64(purpose, width) + 2.0**-54
        return special.ndtri(below + u * (1.0 - 2.0 * below)).clip(-limit, limit).astype(np.float32)

    def beta(self, purpose: str, alpha: float, beta: float) -> np.ndarray:
        """Draws from Beta(alpha, beta), float32 (count,) in [0, 1], by inverting the distribution function."""
        return special.betaincinv(alpha, beta, self._uniform64(purpose, 1)[0]).astype(np.float32)

    def dirichlet(self, purpose: str, alpha: float, width: int) -> np.ndarray:
        """Draws from the Dirichlet distribution, all parameters `alpha`: float32 (width, count), columns sum to 1."""
        # + half a step: all draws of a sample may be 0
        gamma = special.gammaincinv(alpha, self._uniform64(purpose, width) + 2.0**-54)
        return (gamma / gamma.sum(axis=0)).astype(np.float32)

    def choice(self, purpose: str, weights: Sequence[float]) -> np.ndarray:
        """Positions in `weights`, each drawn with its share of their sum, int64 (count,)."""
        ends = np.cumsum(weights, dtype=np.float64)
        # the draw is below 1 and the last end is exactly 1, so a weight of 0 is never drawn
        return np.searchsorted(ends / ends[-1], self._uniform64(purpose, 1)[0], side="right")

    def seeds(self, purpose: str) -> np.ndarray:
        """Seeds for other generators, int64 (count,) in [0, 2**53)."""
        return (self._uniform64(purpose, 1)[0] * 2.0**53).astype(np.int64)

    def _uniform64(self, purpose: str, width: int) -> np.ndarray:
        views = [purpose, *(f"{purpose} of view {view}" for view in range(1, self.views))]
        return np.concatenate([self._of_one_view(view, width) for view in views], axis=1)

    def _of_one_view(self, purpose: str, width: int) -> np.ndarray:
        steps = -(-width // _WORDS)
        generator = _generator(self._seed, self._epoch, purpose, self._start * steps)
        words = generator.random((self._samples, steps * _WORDS))
        if self._rows is not None:
            words = words[self._rows]
        return np.ascontiguousarray(words[:, :width].T)
