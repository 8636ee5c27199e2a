"""What was drawn for an image, in a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import softops

if TYPE_CHECKING:
    from ..pipelines import Recipe


class Part(NamedTuple):
    """One of the samples that a mixed image shows.

    Attributes:
        name: Its class.
        share: Of the label, in (0, 1].
        confidence: What its label keeps, in [0, 1].
    """

    name: str
    share: float
    confidence: float


def words(recipe: Recipe, details: Mapping[str, Any], *, size: int, parts: Sequence[Part] = ()) -> list[str]:
    """Short phrases for one image, in the order of the recipe's steps.

    Of an image of several samples, the samples come first, then what was done to all of it, then what was done to the
    first sample alone.

    Args:
        recipe: What the image went through.
        details: Its rows of a batch's `details`.
        size: Side of the image in pixels.
        parts: The samples that it shows, its own first, if these are several.
    """
    if not recipe.crop.random:  # its window cuts something off, too, but leaves the label alone
        return ["centre crop", "label not softened"]
    own, whole = _own(recipe, details, size), _whole(recipe, details)
    if len(parts) < 2:
        return own + whole
    return [*_shares(parts), *whole, f"{parts[0].name}: {own[0]}", *own[1:]]


def parts(details: Mapping[str, Any], *, names: Sequence[str], num_classes: int) -> list[Part]:
    """The samples that a mixed image shows, its own first; empty where the recipe mixes none.

    Args:
        details: Its rows of a batch's `details`.
        names: Class names of the samples of the batch.
        num_classes: Classes of the data.
    """
    if "mix_row" not in details:
        return []
    confidences = softops.confidence(details["mix_certainty"], num_classes)
    samples: dict[int, Part] = {}
    for row, share, confidence in zip(details["mix_row"].tolist(), details["mix_share"], confidences, strict=True):
        before = samples[row].share if row in samples else 0.0
        samples[row] = Part(names[int(row)], before + float(share), float(confidence))
    return [part for part in samples.values() if part.share > 0]


def _own(recipe: Recipe, details: Mapping[str, Any], size: int) -> list[str]:
    """What was done to a sample before it was mixed with others."""
    phrases = [f"{details['visibility']:.0%} visible"]
    if details["flipped"]:
        phrases.append("flipped")
    phrases += _operations(recipe, details)
    if "covered" in details:
        phrases.append(f"{details['covered'] / size**2:.0%} covered")
    return phrases


def _whole(recipe: Recipe, details: Mapping[str, Any]) -> list[str]:
    """What was done to an image after it was mixed."""
    phrases = []
    if "noise_amplitude" in details:
        phrases.append(f"noise amplitude {_signed(details['noise_amplitude'], '.2f')}")
    if "mollify_role" in details:
        role = str(details["mollify_role"]).replace("_", " ")
        phrases.append(f"{role} t = {details['mollify_strength']:.2f}" if role in ("noise", "blur") else role)
    if recipe.mollify is not None and "mollify_gamma" in details:
        phrases.append(_target(recipe.mollify.label, float(details["mollify_gamma"])))
    return phrases


def _target(label: str, gamma: float) -> str:
    """Where the certainty went that mollification took, which the confidence does not tell."""
    if label == "degrade":
        return f"{1 - gamma:.0%} of the target left"
    on_extra = gamma / (1 + gamma) if label == "add" else gamma  # beside the label, or out of it
    return f"extra class {on_extra:.0%} of the target"


def _shares(parts: Sequence[Part]) -> list[str]:
    """What an image of several samples shows: "70% cat (confidence 0.61)", "30% dog (0.94)", the largest first."""
    ordered = sorted(parts, key=lambda part: -part.share)
    return [
        f"{part.share:.0%} {part.name} ({'' if place else 'confidence '}{part.confidence:.2f})"
        for place, part in enumerate(ordered)
    ]


def _operations(recipe: Recipe, details: Mapping[str, Any]) -> list[str]:
    """The policy's operations, each with its magnitude in its own units; those of AugMix by chain."""
    if recipe.policy is None:
        return []
    suite, steps = recipe.policy.suite(), range(recipe.policy.num_ops)
    phrases = [
        _operation(
            suite[int(details[f"policy_operation_{step}"])],
            share=details[f"policy_magnitude_{step}"] / max(recipe.policy.num_magnitude_bins - 1, 1),
            negative=bool(details[f"policy_sign_{step}"]),
        )
        for step in steps
    ]
    if "policy_depth" not in details:
        return phrases
    longest = len(phrases) // len(details["policy_depth"])
    chains = [
        f"{(1 - details['policy_mix']) * weight:.0%} " + ", ".join(phrases[chain * longest : chain * longest + depth])
        for chain, (depth, weight) in enumerate(zip(details["policy_depth"], details["policy_weight"], strict=True))
    ]
    return [f"{details['policy_mix']:.0%} unchanged", *chains]


def _operation(operation: Any, *, share: float, negative: bool) -> str:
    """An operation of DALI's, at a share of its range of magnitudes."""
    name = operation.name.replace("_", " ")
    if operation.mag_range is None:
        return name
    low, high = operation.mag_range
    value = float(low + (high - low) * share)
    if not operation.randomly_negate:
        return f"{name} {value:.0f}{' bits' if name == 'posterize' else ''}"
    value = -value if negative else value
    if name == "rotate":
        return f"{name} {_signed(value, '.0f')}°"
    if name.startswith("translate"):  # by a share of the side or by pixels, depending on the policy
        return f"{name} {_signed(100 * value, '.0f')}%" if high < 1 else f"{name} {_signed(value, '.0f')} px"
    return f"{name} {_signed(value, '.2f')}"


def _signed(value: float, form: str) -> str:
    """With a sign of its own width, and no sign before zero."""
    text = format(abs(value), form)
    return text if not float(text) else ("\N{MINUS SIGN}" if value < 0 else "+") + text
