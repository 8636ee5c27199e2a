"""A result against an older one: what got slower or faster by more than the spread of either."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .rates import Rate
from .result import FEW, Result

SAME, SLOWER, FASTER = "same", "slower", "faster"

# What may differ without making a comparison meaningless
_IGNORED = ("seconds", "repeats")
_RARE = 100  # a call by chance for so many contenders is not worth a word


@dataclass(frozen=True)
class Change:
    """One contender, then and now.

    Attributes:
        name: The contender.
        ratio: New median over old median.
        verdict: "slower" or "faster" where the repeats of one run all lie beyond those of the other, else "same";
            also "same" with fewer than three repeats of one, which are not judged.
    """

    name: str
    ratio: float
    verdict: str

    def __str__(self) -> str:
        return f"{self.name:<44} {self.ratio:6.2f}   {'' if self.verdict == SAME else self.verdict}".rstrip()


def compare(old: Result, new: Result) -> list[Change]:
    """Changes of the contenders that both results have.

    With five repeats each, two runs of the same thing lie apart completely in 1 of 126 cases, if nothing but chance
    moves them.

    Raises:
        ValueError: if the results are of different suites, or have no contender in common.
    """
    if old.suite != new.suite:
        raise ValueError(f"compare must name a result of the suite {new.suite}, got one of {old.suite}")
    before = {rate.name: rate for rate in old.rates}
    changes = [_change(before[rate.name], rate) for rate in new.rates if rate.name in before]
    if not changes:
        raise ValueError("compare must name a result with one of the same contenders, got none in common")
    return changes


def _change(old: Rate, new: Rate) -> Change:
    verdict = SAME
    if min(len(old.images_per_s), len(new.images_per_s)) < FEW:
        pass
    elif new.spread[1] < old.spread[0]:
        verdict = SLOWER
    elif new.spread[0] > old.spread[1]:
        verdict = FASTER
    return Change(new.name, new.median / old.median, verdict)


def cautions(old: Result, new: Result) -> list[str]:
    """Why a comparison says less than it seems to, a line each."""
    then, now = (min((len(rate.images_per_s) for rate in result.rates), default=0) for result in (old, new))
    lines = []
    if min(then, now) < FEW:
        lines.append(
            f"Nothing is called slower or faster: that takes {FEW} repeats in both runs, got {then} and {now}; use "
            "--repeats 5."
        )
    elif (chance := math.comb(then + now, now) // 2) < _RARE:
        lines.append(
            f"With {then} and {now} repeats about 1 of {chance} contenders is called slower or faster by mere chance; "
            "use --repeats 5."
        )
    return lines + [f"The older run: {line}" for line in old.disturbed()]


def differences(old: Result, new: Result) -> list[str]:
    """What else differs between two results and could explain a change, a line each."""
    lines = []
    for title, then, now in (
        ("settings", old.settings, new.settings),
        ("data", old.data, new.data),
        ("machine", _conditions(old.machine), _conditions(new.machine)),
        ("versions", old.machine.get("versions", {}), new.machine.get("versions", {})),
    ):
        for name in sorted(set(then) | set(now)):
            if then.get(name) != now.get(name) and name not in _IGNORED:
                lines.append(f"{title}: {name} was {then.get(name)}, is {now.get(name)}")
    return lines


def _conditions(machine: dict) -> dict:
    return {name: machine.get(name) for name in ("processor", "cores", "gpu", "system", "python")}
