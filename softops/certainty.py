"""Certainty: how much of a label survives a degradation, and what a trainer makes of it.

Certainty c in [0, 1] is the share that a degradation leaves. With K classes, whose chance is 1/K, the confidence of the
label is `1/K + (1 - 1/K) c`. Two papers are special cases: SA Eq. 7 is `c = 1 - (1 - v)^k` for visibility v, and the
label smoothing `gamma` of SM (Heinonen et al., supervised mollification) is `c = 1 - gamma`.
"""

from __future__ import annotations

from ._elementwise import Array, minimum, product


def softening(visibility: Array, *, power: float = 2.0, plateau: float = 1.0) -> Array:
    """Certainty left at a visibility: the softening curve `1 - (1 - v)^k` (SA Eq. 7).

    Args:
        visibility: v, float32 of any shape S in [0, 1].
        power: k > 0; 2 for crops, 1 for noise in the paper. 1 is linear, larger values keep certainty longer.
        plateau: T in (0, 1]; from T on an image counts as fully visible, below it v / T replaces v
            (the authors' code). 1 is Eq. 7.

    Returns:
        float32 of shape S in [0, 1]; 1 for full visibility, 0 for none.

    Raises:
        ValueError: if `power` or `plateau` is out of range.
    """
    if not power > 0:
        raise ValueError(f"power must be positive, got {power}")
    if not 0 < plateau <= 1:
        raise ValueError(f"plateau must be in (0, 1], got {plateau}")
    return 1.0 - (1.0 - minimum(visibility / plateau, 1.0)) ** power


def combined(*certainties: Array) -> Array:
    """Certainty after several degradations of one image: their product.

    The product is what chaining SA Eq. 7 gives, with the confidence so far in the place of 1.
    """
    if not certainties:
        raise ValueError("combined must get at least one certainty, got none")
    return product(certainties)


def confidence(certainty: Array, num_classes: int) -> Array:
    """Probability that the target puts on the true class: `1/K + (1 - 1/K) c` (SA Eq. 7 with p_min = 1/K).

    Args:
        certainty: c, float32 of any shape S in [0, 1].
        num_classes: K >= 2.

    Returns:
        float32 of shape S in [1/K, 1]; 1 for full certainty, chance for none.

    Raises:
        ValueError: if `num_classes` is less than 2.
    """
    _check_num_classes(num_classes)
    chance = 1.0 / num_classes
    return chance + (1.0 - chance) * certainty


def pair_weight(iou: Array, *, power: float = 4.0, chance: float = 0.0, weigh_down: str = "distant") -> Array:
    """Weight of a pair of views of one image, by the overlap of their windows (SA section 4.4).

    The paper rescales the weights of a batch to a mean of 1 (App. B.4), which is the caller's division.

    Args:
        iou: Intersection over union of the two windows, float32 of any shape S in [0, 1].
        power: k > 0; 4 in the paper.
        chance: p_min in [0, 1); 0 by default, as there are no classes (the paper leaves it open).
        weigh_down: "distant" gives pairs with little overlap less weight, `1 - (1 - p_min)(1 - IoU)^k` (SA#1, Eq. 9);
            "close" gives it to pairs with much, `1 - (1 - p_min) IoU^k` (SA#2, Eq. 10).

    Returns:
        float32 of shape S in [chance, 1].

    Raises:
        ValueError: if an argument is out of range.
    """
    if not power > 0:
        raise ValueError(f"power must be positive, got {power}")
    if not 0 <= chance < 1:
        raise ValueError(f"chance must be in [0, 1), got {chance}")
    if weigh_down not in ("close", "distant"):
        raise ValueError(f"weigh_down must be 'close' or 'distant', got {weigh_down!r}")
    lost = 1.0 - iou if weigh_down == "distant" else iou
    return 1.0 - (1.0 - chance) * lost**power


def _check_num_classes(num_classes: int) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}; with one class there is nothing to learn")
