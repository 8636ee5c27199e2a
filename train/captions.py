"""What was drawn for an image, in a few words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..pipelines import Recipe


def words(recipe: Recipe, details: Mapping[str, Any], *, size: int, names: Sequence[str] = ()) -> list[str]:
    """Short phrases for one image, in the order of the recipe's steps.

    Args:
        recipe: What the image went through.
        details: Its rows of a batch's `details`.
        size: Side of the image in pixels.
        names: Class names of the samples of the batch, for a recipe that mixes them.
    """
    phrases = [f"{details['visibility']:.0%} visible"]
    if details["flipped"]:
        phrases.append("flipped")
    phrases += _operations(recipe, details)
    if "covered" in details:
        phrases.append(f"{details['covered'] / size**2:.0%} covered")
    if "mix_row" in details:
        phrases.append(_shares(names, details))
    if "noise_amplitude" in details:
        phrases.append(f"noise amplitude {_signed(details['noise_amplitude'], '.2f')}")
    if "mollify_role" in details:
        role = str(details["mollify_role"]).replace("_", " ")
        phrases.append(f"{role} t = {details['mollify_strength']:.2f}" if role in ("noise", "blur") else role)
    return phrases


def _shares(names: Sequence[str], details: Mapping[str, Any]) -> str:
    """What an image of several samples shows: "70% cat + 30% dog", the largest share first."""
    shares: dict[str, float] = {}
    for row, share in zip(details["mix_row"].tolist(), details["mix_share"].tolist(), strict=True):
        if share > 0:
            name = names[int(row)]
            shares[name] = shares.get(name, 0.0) + share
    return " + ".join(f"{share:.0%} {name}" for name, share in sorted(shares.items(), key=lambda item: -item[1]))


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
