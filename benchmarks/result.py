"""A benchmark's result: what was measured, on what, with which command; as text and as JSON."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .measurement import Rate, Ratio

FORMAT, FORMAT_VERSION = "softfeed bench", 1
DISTURBED = 0.1  # share of the cores that other programs may use before a result warns of it
_PLAIN = ("suite", "command", "settings", "data", "machine", "facts", "verdict")


@dataclass(frozen=True)
class Result:
    """One run of one suite.

    Attributes:
        suite: What was measured: "steps", "operations", "peers", "scaling" or "memory".
        command: What repeats it.
        settings: Batch size, image size, threads, device, seconds, repeats and the like.
        data: What was played: name, samples, mean bytes, state of the page cache.
        machine: Processor, cores, versions, commit, see `machine.machine`.
        rates: Contenders over the repeats.
        ratios: Between contenders, repeat by repeat.
        facts: What else a suite measured, as plain values.
        verdict: Sentences.
    """

    suite: str
    command: str
    settings: dict[str, Any]
    data: dict[str, Any]
    machine: dict[str, Any]
    rates: list[Rate]
    ratios: list[Ratio] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    verdict: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [self.rates, self.ratios, [*self.verdict, *self.disturbed()]]
        return "\n\n".join("\n".join(map(str, part)) for part in parts if part)

    def disturbed(self) -> list[str]:
        """A warning if other programs kept the machine busy while this was measured."""
        others = [cores for rate in self.rates for cores in rate.others]
        busy = statistics.median(others) if others else 0.0
        if busy <= DISTURBED * self.machine.get("cores", 1):
            return []
        return [f"Other programs kept {busy:.1f} cores busy meanwhile: rates are too low, measure on a quiet machine."]


def to_json(result: Result) -> str:
    """Text of a result's file."""
    rates = [
        asdict(rate) | {"median": rate.median, "spread": list(rate.spread), "cpu_s": rate.cpu_s}
        for rate in result.rates
    ]
    content = {"format": FORMAT, "format_version": FORMAT_VERSION} | asdict(result) | {"rates": rates}
    return json.dumps(content, indent=1) + "\n"


def from_json(path: Path) -> Result:
    """The result in a file.

    Raises:
        ValueError: if it is no result, or one of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"compare must name a result of softfeed bench, got {path}: no JSON ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"compare must name a result of softfeed bench, got {path}")
    if content["format_version"] != FORMAT_VERSION:
        raise ValueError(
            f"format_version in {path} must be {FORMAT_VERSION}, got {content['format_version']}; measure it again"
        )
    names = ("images_per_s", "cpu_s_per_image", "waiting", "others")
    try:
        rates = [Rate(row["name"], *(tuple(row[name]) for name in names)) for row in content["rates"]]
        ratios = [Ratio(**row) for row in content["ratios"]]
        plain = {
            name: content[name] for name in ("suite", "command", "settings", "data", "machine", "facts", "verdict")
        }
    except (KeyError, TypeError) as error:
        raise ValueError(f"compare must name a whole result of softfeed bench, got {path}: {error!r}") from None
    return Result(**plain, rates=rates, ratios=ratios)
