"""What the numbers mean, in words: the bottleneck, what would be possible without it, and what to change."""

from __future__ import annotations

from collections.abc import Sequence

from .rates import Rate
from .result import DISTURBED
from .steps import Step

_IDLE = 0.75  # less of the cores in use than this means that something else than arithmetic holds the loader up
_EPOCH = 10  # batches: of fewer the first, for which everything waits, is too large a part of an epoch
_WAITS = 0.02  # share of a training step's time that may go by waiting before it is worth a word
_NOISE = 0.25  # a step that seems to take less than nothing by this share of the largest one makes that one uncertain
_SLOWER = 0.05  # share by which a loader may slow a step down on a GPU before it is

_ADVICE = {
    "read": "store the images as a shard set (softfeed convert), on a faster disk, or with fewer bytes",
    "numbers": "use larger batches, which share the cost, or a shard set, which knows the images' sizes already",
    "decode": "store smaller images (convert them to the size that is needed), use more cores, or decode on a GPU",
    "cut": "use more cores",
    "resize": "store images nearer to the size of the output, use more cores, or a GPU",
    "policy": "use fewer or cheaper operations, more cores, or a GPU",
    "normalise": "use a smaller output, more cores, or a GPU",
    "shift": "use more cores, or a GPU",
    "occlusion": "use fewer patches, or a GPU",
    "hand-over": "use larger batches, which share the cost",
    "mix": "mix fewer batches, use more cores, or a GPU",
    "noise": "leave it out, use more cores, or a GPU",
    "mollification": "give its roles less weight, use more cores, or a GPU",
}


def of_steps(steps: Sequence[Step], *, cores: int, gpu: bool, others: float = 0.0) -> list[str]:
    """What holds the loader up, a sentence each.

    Args:
        steps: The ladder's.
        cores: Cores that this process may use.
        gpu: Whether the graph runs on a GPU.
        others: Cores that other programs kept busy meanwhile.
    """
    total = 1e6 / steps[-1].images_per_s
    worst, least = (find(steps, key=lambda step: step.wall_us) for find in (max, min))
    plays = f"The loader plays {steps[-1].images_per_s:,.0f} images/s, {total:,.0f} us per image."
    if certain := least.wall_us >= -_NOISE * worst.wall_us:
        without = max(total - worst.wall_us, 1e-9)
        lines = [
            f"{plays} The largest part is {worst.name}: {worst.wall_us:,.0f} us, {worst.wall_us / total:.0%}.",
            f"Without {worst.name} it would be at most {1e6 / without:,.0f} images/s.",
        ]
    else:
        costly = max(steps, key=lambda step: step.cpu_us)
        lines = [
            f"{plays} The largest part cannot be told: {least.name} seems to take {least.wall_us:,.0f} us, and so the "
            f"{worst.wall_us:,.0f} us of {worst.name} may be noise as well. By CPU time, which others disturb less, it "
            f"is {costly.name}: {costly.cpu_us:,.0f} us. Measure again while nothing else runs, or with longer turns "
            "(--seconds)."
        ]
    busy = sum(step.cpu_us for step in steps) / total / cores
    if gpu:
        lines.append(f"The CPU's {cores} cores are {busy:.0%} busy beside the GPU.")
    elif others > cores * DISTURBED:
        lines.append(f"{busy:.0%} of the {cores} cores are busy with it, {others:.1f} with other programs.")
    elif busy < _IDLE:
        lines.append(
            f"Only {busy:.0%} of the {cores} cores are busy: the loader waits for something else than arithmetic, "
            "such as a disk, or has too few threads (--threads)."
        )
    else:
        lines.append(f"{busy:.0%} of the {cores} cores are busy: more or faster cores help in proportion.")
    if certain:
        lines.append(f"To change it: {_ADVICE.get(worst.name, 'use more cores, or a GPU')}.")
    return lines


def of_epochs(samples: int, batch_size: int) -> list[str]:
    """A warning for an epoch of so few batches that rates say more about its beginning and end than about the rest.

    Args:
        samples: Images of the data set.
        batch_size: Images of a batch.
    """
    batches = max(1, samples // batch_size)
    if batches >= _EPOCH:
        return []
    smaller = f", or batches of at most {samples // _EPOCH}" if samples >= _EPOCH else ""
    return [
        f"An epoch of these {samples:,} images is {batches} batch{'es' if batches > 1 else ''} of {batch_size}: its "
        "beginning, where nothing is ready yet, is a large part of it, and a larger data set would be played faster. "
        f"For the rate of that use more images, or links to them{smaller}."
    ]


def of_training(model: str, alone: Rate, loader: Rate, together: Rate, *, gpu: bool) -> list[str]:
    """Whether a training step waits for the loader, a sentence each.

    Args:
        model: Name of the network.
        alone: The step on synthetic data.
        loader: The loader without a step.
        together: Both, with the share of the time that the step waited.
        gpu: Whether steps run on a GPU; on a CPU step and loader share the cores.
    """
    waiting = sorted(together.waiting)[len(together.waiting) // 2]
    times = loader.median / alone.median
    lines = [
        f"A step of {model} takes {alone.median:,.0f} images/s, the loader gives {loader.median:,.0f} ({times:.2g} "
        f"times as many); together they do {together.median:,.0f}, and {waiting:.1%} of the time is spent waiting for "
        "data."
    ]
    slower = 1 - together.median / alone.median
    if waiting <= _WAITS and gpu and slower > _SLOWER:
        lines.append(
            f"The step has its data in time, but is {slower:.0%} slower beside the loader, which works on the same "
            "GPU: more batches ahead would not change that, fewer or cheaper operations would."
        )
    elif waiting <= _WAITS:
        lines.append("The training step is the bottleneck: a faster loader would change nothing.")
    elif times < 1:
        lines.append(f"The loader is the bottleneck: without it training would do {alone.median:,.0f} images/s.")
    elif gpu:
        lines.append("The loader is fast enough on average but late at times: try more batches ahead (prefetch).")
    else:
        lines.append("Loader and step share the cores: each is slowed down by the other.")
    return lines
