"""What a loader's forms of output and its decoder's settings cost: images per second, and memory of the GPU.

`python -m softfeed.benchmarks.outputs DATA` plays, in turn, float32, float16 and bfloat16, channels first and last; on
a GPU then, as float16, channels last, chroma interpolated and repeated with shares of the JPEG engines, for parts of
images and for whole ones. `--output` writes JSON for `benchmarks/results/`; `make bench-gpu DATA=...` runs this, too.
With `DALI_NVIMGCODEC_LOG_LEVEL=3` the decoder tells how many engines there are, and when it decodes a batch for them
image by image ("HW batch-single").
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import product
from typing import Any

import torch

from ..pipelines import Loader, presets
from ..pipelines.sources import open_source
from .machine import machine
from .measurement import Here, measure
from .memory import release_gpu_memory
from .program import Program, finish, in_one_line, settings_of
from .progress import Progress
from .rates import ratio
from .recorded import without_folders
from .result import Result
from .session import data_facts
from .steps import of_loader
from .verdict import of_epochs


def _program() -> Program:
    program = Program("outputs", __doc__)
    program.add_data()
    program.add_recipe("soft-imagenet")
    program.add_sizes(batch_size=256, image_size=224)
    program.add_argument("--threads", type=int, help="threads of the graph (default: the loader's own choice)")
    program.add_turns(seconds=3.0, repeats=7)
    program.add_argument("--device", help="cpu or cuda (default: the GPU where there is one)")
    return program


Variants = dict[str, dict[str, Any]]


def _forms() -> Variants:
    """Forms of output to play, as keyword arguments of a loader, by name."""
    dtypes, layouts = (torch.float32, torch.float16, torch.bfloat16), (False, True)
    return {
        f"{str(dtype).removeprefix('torch.')}, channels {'last' if last else 'first'}": {
            "dtype": dtype,
            "channels_last": last,
        }
        for dtype, last in product(dtypes, layouts)
    }


def _decoders(speed_settings: dict[str, Any]) -> Variants:
    """Ways to decode on a GPU, likewise; the first is the loader's own, and there are none on a CPU.

    Args:
        speed_settings: Of a loader with its own settings.
    """
    if "hw_decoder_load" not in speed_settings:
        return {}
    # Where parts of images crash the decoder, they are not played; the loader finds out for each way to upsample.
    ways = {"parts": {}, "whole": {"roi_decode": False}}
    if not speed_settings["roi_decode"]:
        del ways["parts"]
    shares = dict.fromkeys((speed_settings["hw_decoder_load"], 0.0, 0.65, 1.0))
    return {
        f"{way}, {'interpolated' if fancy else 'repeated'} chroma, {share:.0%} to the JPEG engines": {
            "dtype": torch.float16,
            "channels_last": True,
            "fancy_upsampling": fancy,
            "hw_decoder_load": share,
            **settings,
        }
        for (way, settings), fancy, share in product(ways.items(), (True, False), shares)
    }


def _gpu_bytes(make: Callable[..., Loader], settings: dict[str, Any]) -> int:
    """Memory that a loader takes of the GPU, DALI's and torch's, after two epochs or twenty batches."""
    release_gpu_memory()  # what other loaders left behind is not to be used again unseen
    before = torch.cuda.mem_get_info()[0]
    with make(**settings) as loader:
        for _ in range(2):
            for step, _batch in enumerate(loader):
                if step == 10:
                    break
        torch.cuda.synchronize()
        return before - torch.cuda.mem_get_info()[0]


@in_one_line
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit status, 1 if one of the forms failed."""
    options = _program().parsed(arguments)
    recipe = presets.by_name(options.recipe)

    def make(**settings: Any) -> Loader:
        fixed = {"device": options.device, "num_threads": options.threads, "last_batch": "fill"}
        return Loader(options.data, recipe, options.batch_size, options.image_size, **fixed, **settings)

    with make() as loader:
        device, groups = loader.device, [_forms(), _decoders(loader.speed_settings)]
    rates, ratios = [], []
    failed: dict[str, Exception] = {}
    for variants in filter(None, groups):  # apart, so that not all of them take the GPU's memory at once
        with ExitStack() as stack:
            loaders = {name: stack.enter_context(make(**settings)) for name, settings in variants.items()}
            contenders = {name: Here(of_loader(loader)) for name, loader in loaders.items()}
            turns: dict[str, Any] = {"seconds": options.seconds, "repeats": options.repeats, "progress": Progress()}
            played = measure(contenders, **turns, failed=failed)
        first = played.get(next(iter(variants)))
        rates += played.values()
        ratios += [ratio(rate, first) for rate in played.values() if first is not None and rate is not first]
    verdict = of_epochs(len(open_source(options.data)), options.batch_size)
    verdict += [f"{name} failed: {without_folders(str(error))}" for name, error in failed.items()]
    facts = {}
    if device.type == "cuda":
        try:
            facts["gpu_gib"] = {
                name: _gpu_bytes(make, settings) / 2**30 for variants in groups for name, settings in variants.items()
            }
        except RuntimeError as error:  # which must not cost the turns that were measured
            verdict.append(f"Memory of the GPU was not measured: {without_folders(str(error))}")
    about = (options.command, settings_of(options), data_facts(open_source(options.data)), machine())
    finish(Result("outputs", *about, rates, ratios, facts, verdict), options.output)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
