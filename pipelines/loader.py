"""The loader: batches of softly augmented images, their labels, and the confidence that the labels still deserve."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from typing import Any, NoReturn, SupportsIndex

import numpy as np
import torch
from torch.utils.data import get_worker_info

from .. import softops
from . import checks, fingerprint, state
from .batches import BatchBuilder
from .crops import CenterCrop
from .decoder import HW_DECODER_LOAD, decoder_for
from .draws import permutation
from .faults import MAX_ERRORS, ErrorLog, SampleError
from .frameworks import DatasetView, EpochSampler, SequentialEpochSampler
from .graph import GraphOptions, computed_after_graph, graph_part
from .output import Output
from .partition import Step, partition
from .plan import GraphWork
from .playing import Pass, Player
from .preparing import Prepared, Preparer
from .process import default_prefetch, default_threads, pick_device, place_among_ranks
from .recipe import Recipe
from .runner import Runner
from .sources import Source, open_source
from .split import in_two_graphs, new_runner
from .state import Place
from .threads import RowThreads

TARGETS = ("confidence", "soft", "labels")


class Loader:
    """Iterates over a data set in softly augmented batches.

    One `iter` is one epoch. Order and draws depend on `seed` and the epoch's number alone, not on the number of ranks
    or threads. Three things go by the batch: a schedule that moves within an epoch moves once per step of all ranks, a
    recipe that mixes samples finds partners within the batch of a rank, and on a GPU the pixels of noise are drawn for
    a batch together.

    Each `iter` plays the epoch after the last one, or the one that `set_epoch` names, from its beginning, also after a
    `break`; after `load_state_dict`, the rest of the epoch that was left. It ends the pass before. Iterating yields
    named tuples `Batch` with these fields, on the loader's device:

    - `images`: (N, 3, S, S), normalised, of type `dtype`;
    - `labels`: int64 (N,), and `confidence`: float32 (N,) in [1/K, 1], the probability that the target should put on
      the label (SA Eq. 7, multiplied over the steps); or, with `targets="soft"`, one field `targets` in their place:
      float32 (N, K), the unnormalised target `w * q` that any cross-entropy with probability targets takes (SA Eq. 6),
      or (N, K + 1) with a mollification that adds a class; or, with `targets="labels"`, `labels` alone, so that
      `for images, labels in loader` works as with a `DataLoader`;
    - `iou` with several views: float32 (V, V, N), intersection over union of the windows of each pair of views;
    - `index` on request: int64 (N,), the samples' positions in the data set;
    - `details` on request: what was drawn, a dictionary of numpy arrays, see `plan.Plan.details`.

    On a GPU a batch belongs to the CUDA stream that is current when it is handed over: it may be used there at once,
    and let go with work on it still queued. Used on another stream, it must be kept until that has done its work.

    A recipe with `views=V` > 1 puts V in front of the shapes of `images`, `confidence`, `targets` and `details`; the
    bytes of a sample are read and decoded once.

    Args:
        data: An image folder (`class/image.jpg`) or a shard set written by `softfeed convert`.
        recipe: What is done to each image.
        batch_size: Samples of a batch on this rank, >= 1.
        image_size: Side S of the square output in pixels, >= 1; None is the longer side of raw images, else 224.
        classes: Names that labels are positions in, such as `classes` of the training set's loader for its validation
            set. The data may have no image of some of them, but has no other classes. None takes the data's own: the
            subfolders of an image folder in sorted order, each of which must hold an image, or those of the shard set.
        seed: Seed of order and draws, >= 0.
        device: "cpu", "cuda", "cuda:1"...; None is the GPU if there is one, else the CPU.
        shuffle: Whether each epoch has a new order; None shuffles for a training recipe only, see `Recipe.training`.
        last_batch: "drop", "fill" or "keep", see `partition`; None drops for a training recipe and keeps for others.
        targets: "confidence", "soft" or "labels", see above; a recipe that mixes samples, or whose mollification does
            not just smooth labels, needs "soft".
        softening: What confidences do to soft targets: "target-weight" softens the target and weights the sample (SA
            Eq. 6), "target" (Eq. 4) and "weight" (Eq. 5) do one of both, "none" neither.
        dtype: Type of the images: torch.float32, torch.float16 or torch.bfloat16. The graph writes float32 and float16
            itself; bfloat16, and half precision of recipes that mix, add noise or mollify, which compute in float32, is
            rounded to by torch, on the device, at the end.
        channels_last: Whether images lie in memory as torch.channels_last; written so by the graph, without a copy.
        index: Whether batches tell the samples' positions in the data set.
        details: Whether batches tell what was drawn.
        rank: This process among `world_size`; None asks torch.distributed if it is initialised, else 0.
        world_size: Number of processes that share the data; None as for `rank`, else 1.
        num_threads: CPU threads of the graph, and as many on a CPU for what is done beside it; None divides this
            process's cores among the machine's ranks, and leaves one to Python for raw images.
        prefetch: Batches kept ahead, >= 1; on a CPU one of them is finished, and of others the decoded images are kept.
            None is 2 on a CPU and 3 on a GPU, see `process.default_prefetch`.
        on_error: What becomes of a sample that cannot be read or decoded. "raise" raises an error that names its
            shard, offset and original name. "skip" records it in `errors`, and goes on in step with the other ranks:
            its place in the batch is taken by the next good sample, which is then played twice; with
            `last_batch="keep"` the batch is shorter instead. A batch without a good sample is filled with the next one
            of the epoch, which in evaluation has confidence 0 there, or where there is none the label -100, which
            torch's cross-entropy ignores, so as not to count twice. Samples that failed are not tried again.
        max_errors: How many samples may be found on this rank that have to be skipped: a whole number, or a share of
            the data set below 1. Those that a state tells of, which may be of other ranks, do not count.
        timeout: Seconds in which not one sample is read, > 0, before a TimeoutError says where reading hangs; None
            waits for ever.
        hw_decoder_load: Share of the images that a GPU's JPEG engines decode, in [0, 1]; `softfeed tune` finds the
            best.
        roi_decode: Whether only the visible part of an image is decoded; None does so wherever it works, which on a
            GPU is tried once per machine, see `roi_probe`. The pixels are the same. On a CPU the evaluation crop takes
            whole images anyway.
        fancy_upsampling: Whether a GPU interpolates the chroma of JPEGs that store less of it (4:2:0), as CPUs and
            Pillow do, or repeats it. Repeating is less work, and lets several JPEG engines decode as one batch what is
            subsampled in several ways, as ImageNet is, where nvImageCodec 0.9 decodes it image by image in the CPU
            threads that the CUDA cores' share needs; `softfeed tune` measures how much that gives. But it changes
            pixels at edges between colours, by up to 40 of 255 in a photograph and 1 in the mean: they are no longer
            those of a CPU, which refuses it, and a state of the one does not fit the other.

    Raises:
        FileNotFoundError: if there is no data.
        ValueError: if the data or an argument is not as described.

    While iterating:

        ReadError: if a sample cannot be read.
        UnreadableImageError: if a sample does not decode.
        ErrorBudgetError: if more samples fail than `max_errors` allows to skip.
        TimeoutError: if reading hangs.
    """

    _PLAYER = Player

    def __init__(  # noqa: PLR0913 - one keyword per independent choice, all with defaults
        self,
        data: str | os.PathLike[str],
        recipe: Recipe,
        batch_size: int,
        image_size: int | None = None,
        *,
        classes: Sequence[str] | None = None,
        seed: int = 0,
        device: str | torch.device | None = None,
        shuffle: bool | None = None,
        last_batch: str | None = None,
        targets: str = "confidence",
        softening: str = "target-weight",
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
        index: bool = False,
        details: bool = False,
        rank: int | None = None,
        world_size: int | None = None,
        num_threads: int | None = None,
        prefetch: int | None = None,
        on_error: str = "raise",
        max_errors: float = MAX_ERRORS,
        timeout: float | None = 300.0,
        hw_decoder_load: float = HW_DECODER_LOAD,
        roi_decode: bool | None = None,
        fancy_upsampling: bool = True,
    ) -> None:
        if not isinstance(recipe, Recipe):
            raise TypeError(f"recipe must be a Recipe, got {recipe!r}; presets.by_name(NAME) gives one by its name")
        seed = checks.whole("seed", seed, least=0)
        batch_size = checks.whole("batch_size", batch_size)
        checks.choice("shuffle", shuffle, (None, False, True))
        checks.choice("targets", targets, TARGETS)
        checks.choice("softening", softening, softops.SOFTENINGS)
        if recipe.needs_targets and targets != "soft":
            raise ValueError(
                f"targets must be 'soft' for a recipe that mixes samples or labels in its own way, got {targets!r} "
                f"with mix={recipe.mix} and mollify={recipe.mollify}"
            )
        self.recipe, self.batch_size, self.seed = recipe, batch_size, seed
        self.device = pick_device(device)
        prefetch = default_prefetch(self.device) if prefetch is None else checks.whole("prefetch", prefetch)
        self._source = open_source(data, classes)
        image_size = self._source.usual_size if image_size is None else checks.whole("image_size", image_size)
        self.image_size = image_size
        _check_sizes(recipe, self._source, image_size)
        self.rank, self.world_size = place_among_ranks(rank, world_size)
        self._shuffle = recipe.training if shuffle is None else bool(shuffle)
        last_batch = ("drop" if recipe.training else "keep") if last_batch is None else last_batch
        self._last_batch, self._targets = last_batch, f"soft, {softening}" if targets == "soft" else targets
        self.drop_last = last_batch == "drop"
        self._length = len(self._steps_from(0))
        output = Output(dtype, channels_last)
        self._graph_output = output.of_graph(last=not computed_after_graph(recipe))
        raw = self._source.raw_shape is not None
        threads = default_threads(raw=raw) if num_threads is None else checks.whole("num_threads", num_threads)
        self._threads = RowThreads(threads)
        self._batches = BatchBuilder(
            self._source,
            recipe,
            image_size,
            self.device,
            output,
            threads=self._threads,
            softening=softening if targets == "soft" else None,
            extra=[
                name
                for name, wanted in (
                    ("confidence", targets == "confidence"),
                    ("iou", recipe.views > 1),
                    ("index", index),
                    ("details", details),
                )
                if wanted
            ],
        )
        device_id = None if self.device.type == "cpu" else self.device.index
        decoder = decoder_for(
            self._source,
            self.device,
            batch_size,
            hw_decoder_load=hw_decoder_load,
            roi_decode=roi_decode,
            fancy_upsampling=fancy_upsampling,
        )
        two_graphs = in_two_graphs(recipe, self.device)
        self._options = GraphOptions(
            batch_size=batch_size,
            num_threads=threads,
            device_id=device_id,
            prefetch=prefetch,
            decoder=decoder,
            two_graphs=two_graphs,
        )
        self._errors = ErrorLog(self._source, on_error, max_errors)
        self._preparer = Preparer(
            self._source,
            recipe,
            batch_size,
            image_size,
            self._errors,
            seed=seed,
            num_threads=threads,
            leave_out=last_batch == "keep",
            work=GraphWork(
                raw=raw,
                whole_images=two_graphs and not recipe.crop.whole_pixels,
            ),
        )
        if timeout is not None:
            checks.positive("timeout", timeout)
        self._player = self._PLAYER(self._preparer, prefetch, timeout)
        self._place = self._next = Place(0, 0)  # of the last batch handed over, and where the next `iter` begins
        self._restored = False  # since the last batch
        self._process = os.getpid()
        # Weak, as a pass holds the loader: both are then freed at once where they are let go, not by the garbage
        # collector at some time in some thread, and a `break` ends the reading ahead.
        self._playing: weakref.ref[Pass] | None = None

    @property
    def speed_settings(self) -> dict[str, Any]:
        """The settings in use that matter here and change nothing but speed, as keyword arguments of a loader."""
        options, decoder = self._options, self._options.decoder
        settings: dict[str, Any] = {"num_threads": options.num_threads, "prefetch": options.prefetch}
        if decoder.device_id is not None:
            settings |= {"hw_decoder_load": decoder.hw_decoder_load, "roi_decode": decoder.roi}
        return settings

    # frameworks that find a sampler look for this beside it; DataLoader has None where it makes no batches of samples
    batch_sampler = None

    @cached_property
    def dataset(self) -> DatasetView:
        """The data set as frameworks look for it: `len`, `classes`, `class_to_idx`, `targets`; `dataset[i]` is sample
        `i`, its whole image and its label.
        """
        return DatasetView(self._source)

    @property
    def sampler(self) -> EpochSampler:
        """The order as frameworks look for it: `set_epoch`, and the positions that this rank plays next."""
        kind = EpochSampler if self._shuffle else SequentialEpochSampler
        return kind(self._order, self.set_epoch)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; labels are positions in it."""
        return self._source.classes

    @property
    def num_classes(self) -> int:
        """K, the number of classes."""
        return len(self._source.classes)

    @property
    def num_targets(self) -> int:
        """Columns of soft targets, which is what a model should give: K, or K + 1 with an extra class."""
        return self.num_classes + self.recipe.extra_classes

    @property
    def num_samples(self) -> int:
        """Samples in the data set, over all ranks."""
        return len(self._source)

    def __len__(self) -> int:
        """Batches of an epoch on this rank, the same on every rank."""
        return self._length

    def __getitem__(self, index: object) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} gives whole batches, and must be iterated over; it reads ahead by itself, "
            "without a DataLoader around it. Single samples are in loader.dataset"
        )

    def __repr__(self) -> str:
        place = f", rank={self.rank}, world_size={self.world_size}" if self.world_size > 1 else ""
        place += f", shuffle={self._shuffle}, last_batch={self._last_batch!r}"
        return (
            f"{type(self).__name__}({str(self._source.root)!r}, {self.recipe}, batch_size={self.batch_size}, "
            f"image_size={self.image_size}, seed={self.seed}, device={str(self.device)!r}{place}): "
            f"{self.num_samples:,} samples of {self.num_classes:,} classes in {len(self):,} batches"
        )

    def set_epoch(self, epoch: int) -> None:
        """Let the next `iter`, or the last one if it has not given a batch, play epoch `epoch`, counted from 0.

        The epoch that `load_state_dict` went to the middle of is still played from there; an epoch before it is played
        again, with a warning.
        """
        epoch = checks.whole("epoch", epoch, least=0)
        if self._restored and epoch < self._next.epoch:
            warnings.warn(
                f"epoch {epoch} is played again: the state that was loaded is of the beginning of epoch "
                f"{self._next.epoch}; go on with `for epoch in range(loader.epoch, epochs)`",
                stacklevel=2,
            )
        if epoch != self._next.epoch:
            self._next = Place(epoch, 0)
        self._place = self._next

    @property
    def epoch(self) -> int:
        """The epoch that the next `iter` plays, or after `load_state_dict` goes on with, counted from 0."""
        return self._next.epoch

    def state_dict(self) -> dict[str, Any]:
        """Where the stream of batches stands, after the last batch that was handed over, or where `set_epoch` went
        since: small, and plain values.

        It is the same on every rank, but for `errors`, which are this rank's; so one rank can save it for all.
        """
        return {**self._settings, **self._place._asdict(), "errors": [list(error) for error in self._errors.errors]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to the place that a state tells: the next `iter` yields what would have come next.

        The rest of an epoch is shorter than `len`. After an epoch's last batch, the next epoch comes, whole. The number
        of ranks may have changed: the samples that are left are then spread over the new ones, each once.

        With `last_batch="drop"` a rest that is too small for a step of more ranks is left out, with a warning.

        Raises:
            ValueError: if the state is of other data, another recipe, seed, image size, batch size or other targets, or
                an epoch's rest is too small for the number of ranks.
        """
        place = state.place_in(state_dict, self._settings, self.recipe)
        rest = self._steps_from(place.position)
        self._stop("load_state_dict")
        if not rest:
            warnings.warn(
                f"{self.num_samples - place.position} samples at the end of epoch {place.epoch} are left out: they are "
                f"too few for a step of {self.world_size} rank(s) of batches of {self.batch_size}",
                stacklevel=2,
            )
        self._restored = True
        self._place = self._next = place if rest else Place(place.epoch + 1, 0)
        self._errors.load(state_dict.get("errors", ()))

    @property
    def errors(self) -> list[SampleError]:
        """The samples that were skipped on this rank, with `index`, `source` and `reason`, as they were found."""
        return self._errors.errors

    def source(self, index: SupportsIndex) -> str:
        """Where sample `index` lies: its file, or its shard, offset and original name.

        Raises:
            TypeError: if that is no whole number, or several.
            IndexError: if there is no such sample.
        """
        return self._source.describe(self._source.position(index))

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} must be made in the process that iterates over it, as its threads and files "
            "cannot be copied; without a DataLoader around it, it reads ahead by itself"
        )

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        if worker is not None and worker.num_workers > 1 and os.getpid() != self._process:
            raise RuntimeError(
                f"a loader must not be shared by {worker.num_workers} workers of a DataLoader, which would each play "
                "all of it; use it without one, as it reads ahead by itself"
            )
        self._stop("another one")
        playing = Pass(self._play())
        self._playing = weakref.ref(playing)
        return playing

    def close(self) -> None:
        """Stop reading and free the graph; the loader may be iterated again.

        A read that hangs is left to its thread after a few seconds.
        """
        self._stop("close()")
        self._player.close()
        self._threads.close()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _order(self) -> np.ndarray:
        """Samples that this rank plays in the next epoch, int64."""
        count = len(self._source)
        steps = self._steps_from(self._next.position)
        places = np.concatenate([np.arange(step.start, step.start + step.count) for step in steps]) % count
        return permutation(self.seed, self._next.epoch, count)[places] if self._shuffle else places

    def _stop(self, by: str) -> None:
        playing, self._playing = self._playing and self._playing(), None
        if playing is not None:
            playing.end(by)

    @cached_property
    def _settings(self) -> dict[str, Any]:
        """What a state must be of to fit this loader."""
        return state.settings(
            self.recipe,
            data=fingerprint.name(self._source),
            seed=self.seed,
            image_size=self.image_size,
            shuffle=self._shuffle,
            last_batch=self._last_batch,
            targets=self._targets,
            fancy_upsampling=self._options.decoder.fancy_upsampling,
            batch_size=self.batch_size,
            world_size=self.world_size,
        )

    def _steps_from(self, position: int) -> list[Step]:
        count = len(self._source)
        return partition(count, self.batch_size, self.rank, self.world_size, self._last_batch, position=position)

    def _play(self) -> Generator[Any, None, None]:
        # Only now, at the first batch: frameworks call `iter` to see whether it works, or before `set_epoch`.
        place = self._place = self._next
        self._restored = False
        self._next = Place(place.epoch + 1, 0)
        steps = self._steps_from(place.position)
        produce = self._preparer.of_epoch(place.epoch, shuffle=self._shuffle)
        with closing(self._player.play(produce, steps, self._new_runner)) as played:
            for prepared, images in played:
                batch = self._finish(prepared, images)
                over = prepared.step.end >= steps[-1].end
                self._place = Place(place.epoch + 1, 0) if over else Place(place.epoch, prepared.step.end)
                yield batch

    def _finish(self, prepared: Prepared, images: torch.Tensor) -> Any:
        """From the graph's output to what is handed over."""
        batch = self._batches.build(images, prepared.plan, prepared.index)
        if prepared.stand_in and not self.recipe.training:
            if self._targets == "labels":
                batch.labels.fill_(-100)
            else:
                (batch.confidence if self._targets == "confidence" else batch.targets).zero_()
        return batch

    def _new_runner(self, example: dict[str, np.ndarray], **options: Any) -> Runner:
        return new_runner(
            graph_part(self.recipe),
            example,
            self._options,
            self._threads,
            size=self.image_size,
            raw=self._source.raw_shape is not None,
            output=self._graph_output,
            **options,
        )


def _check_sizes(recipe: Recipe, source: Source, size: int) -> None:
    """Raise ValueError for settings that cannot go with the data, before anything runs."""
    crop = recipe.crop
    if isinstance(crop, CenterCrop) and crop.resize is not None and crop.resize < size:
        raise ValueError(f"resize must be at least image_size, {size}, got {crop.resize}")
    if recipe.occlude is not None:
        recipe.occlude.check_size(size)
    if len(source.classes) < 2:
        raise ValueError(f"data must have at least two classes, got {list(source.classes)} in {source.root}")
    if source.raw_shape is not None and not crop.resizes and source.raw_shape[:2] != (size, size):
        height, width, _ = source.raw_shape
        raise ValueError(
            f"image_size must be the images' own size, {height}x{width}, with {type(crop).__name__}, got {size}"
        )
