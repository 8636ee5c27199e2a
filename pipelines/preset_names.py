"""The parts of the names of recipes, which a command's help lists without waiting for what the recipes need."""

from __future__ import annotations

CROPS = ("soft-imagenet", "hard-imagenet", "soft-cifar", "hard-cifar")
# What may follow, at most one of each, in this order
POLICIES = ("-ra", "-ta", "-aa", "-augmix")
MIXES = ("-mixup", "-cutmix", "-copypaste", "-mosaic")
MOLLIFY = ("-moll",)


def grammar() -> str:
    """How a name is made, for people."""
    suffixes = ", ".join(" | ".join(part) for part in (POLICIES, MIXES, MOLLIFY))
    crops = f"{', '.join(CROPS[:-1])} or {CROPS[-1]}"
    return f"{crops}; behind it may follow, in this order: {suffixes}; or FILE.py:NAME, a Recipe in a file of yours"
