"""A benchmark's result: what was measured, on what, with which command; as text and as JSON."""

from __future__ import annotations

import json
import os
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..pipelines import atomic
from .rates import Rate, Ratio

FEW = 3  # repeats of which a median says something; fewer tell nothing from noise
FORMAT, FORMAT_VERSION = "softfeed bench", 1
DISTURBED = 0.1  # share of the cores that other programs may use before a result warns of it
_PLAIN = ("suite", "command", "settings", "data", "machine", "facts", "verdict")


def slow_decoding(reason: str) -> str:
    """What to say, and to do, where parts of images are left to the CPU."""
    return (
        f"Rates that begin with JPEGs are too low: of parts of images {reason}; "
        "pip install 'nvidia-nvjpeg>=13.2' and put its folder first in LD_LIBRARY_PATH."
    )


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
        parts = [self.rates, self.ratios, _lines(self.facts), [*self.uncertain(), *self.verdict]]
        return "\n\n".join("\n".join(map(str, part)) for part in parts if part)

    def disturbed(self) -> list[str]:
        """A warning if other programs kept the machine busy while this was measured."""
        others = [cores for rate in self.rates for cores in rate.others]
        busy = statistics.median(others) if others else 0.0
        if busy <= DISTURBED * self.machine.get("cores", 1):
            return []
        return [
            f"These numbers are uncertain: other programs kept {busy:.1f} cores busy meanwhile, so rates are too low; "
            "measure on a quiet machine."
        ]

    @property
    def repeats(self) -> int | None:
        """Turns that every contender had; None if there were none, as where one long run is looked at."""
        if not self.rates or "repeats" not in self.settings:
            return None
        return min(len(rate.images_per_s) for rate in self.rates)

    def uncertain(self) -> list[str]:
        """Why conclusions from it may be wrong, if there is a reason."""
        few = []
        if self.repeats is not None and self.repeats < FEW:
            times = "1 repeat" if self.repeats == 1 else f"{self.repeats} repeats"
            few = [f"These numbers are uncertain: {times} cannot tell a difference from noise; use --repeats 5."]
        return few + self.disturbed() + self.slowly_decoded()

    def slowly_decoded(self) -> list[str]:
        """A warning if a GPU decoded with an nvJPEG that leaves a part of that to the CPU."""
        reason = (self.machine.get("gpu") or {}).get("slow_decoding")
        return [] if reason is None else [slow_decoding(reason)]


def _lines(facts: dict[str, Any]) -> list[str]:
    """The facts that are numbers, or have names for numbers, and what each step adds; not those for pictures."""
    lines = [
        f"{step['name']:<44} {step['wall_us']:>+10,.1f} us/image {step['cpu_us']:>+10,.1f} us CPU/image"
        for step in facts.get("steps", ())
    ]
    for name, fact in facts.items():
        numbers = fact if isinstance(fact, dict) else {"": fact}
        told = [f"{key} {_number(value)}".strip() for key, value in numbers.items() if isinstance(value, int | float)]
        if told:
            lines.append(f"{name}: {', '.join(told)}")
    return lines


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def to_json(result: Result) -> str:
    """Text of a result's file."""
    rates = [
        asdict(rate) | {"median": rate.median, "spread": list(rate.spread), "cpu_s": rate.cpu_s}
        for rate in result.rates
    ]
    content = {"format": FORMAT, "format_version": FORMAT_VERSION} | asdict(result) | {"rates": rates}
    return json.dumps(content, indent=1) + "\n"


def check_output(path: Path | None, name: str = "output") -> None:
    """Raise OSError for a file that could not be written after everything was measured; None is no file."""
    if path is None:
        return
    folder = path.resolve().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"{name} must be in a folder that exists, got {path}; make the folder first")
    if path.is_dir():
        raise IsADirectoryError(f"{name} must be a file, got the folder {path}; name a file in it")
    if not path.exists():  # one that is there, such as /dev/stdout, may be written in a folder that takes no other
        atomic.require_writable(folder, name=name)
    elif not os.access(path, os.W_OK):
        raise PermissionError(f"{name} must be writable, got {path}, which may not be written; choose another --{name}")


def from_json(path: Path) -> Result:
    """The result in a file.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no result, or one of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"compare must name a file that can be read, got {path} ({reason}); check --compare") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"compare must name a result of softfeed bench, got {path}: no JSON ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"compare must name a result of softfeed bench, got {path}")
    written = content.get("format_version")
    if written != FORMAT_VERSION:
        raise ValueError(f"format_version in {path} must be {FORMAT_VERSION}, got {written}; measure it again")
    names = ("images_per_s", "cpu_s_per_image", "waiting", "others")
    try:
        if not all(isinstance(content[name], dict) for name in ("settings", "data", "machine", "facts")):
            raise TypeError("settings, data, machine and facts must be objects")
        rates = [Rate(row["name"], *(tuple(row[name]) for name in names)) for row in content["rates"]]
        ratios = [Ratio(**row) for row in content["ratios"]]
        plain = {name: content[name] for name in _PLAIN}
    except (KeyError, TypeError) as error:
        raise ValueError(f"compare must name a whole result of softfeed bench, got {path}: {error!r}") from None
    for rate in rates:
        if not (_positive(rate.images_per_s) and len(rate.images_per_s) == len(rate.cpu_s_per_image)):
            raise ValueError(
                f"images_per_s of {rate.name!r} in {path} must be positive numbers, one for each repeat, got "
                f"{list(rate.images_per_s)}; measure it again"
            )
    return Result(**plain, rates=rates, ratios=ratios)


def _positive(values: tuple[Any, ...]) -> bool:
    return bool(values) and all(isinstance(value, int | float) and 0 < value < float("inf") for value in values)
