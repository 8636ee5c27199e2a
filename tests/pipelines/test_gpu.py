"""What only a GPU can get wrong: order of streams, memory given back too early, engines of the decoder.

The tests of the other files that take `device` run on the GPU, too: types and layouts, kept batches, parts and whole
images.
"""

from itertools import islice

import pytest
import torch
from softfeed.benchmarks.memory import release_gpu_memory
from softfeed.pipelines import CenterCrop, GridMask, Loader, Mixup, Mollify, Mosaic, Recipe, SoftCrop, SoftShift
from softfeed.pipelines.shards.convert import ShardOptions, convert

from .conftest import EVERY_SLOT

pytestmark = pytest.mark.gpu

SOFT = Recipe(crop=SoftCrop())
MASKED = Recipe(crop=SoftCrop(), occlude=GridMask(probability=1.0))
BUSY_CYCLES = 20_000_000  # about 10 ms


def play(data, recipe=SOFT, **options):
    return Loader(data, recipe, 5, 224, **{"device": "cuda", "last_batch": "fill", "prefetch": 3, **options})


@pytest.fixture
def busy():
    """Keeps the GPU at work on another stream: a function to call now and then."""
    stream = torch.cuda.Stream()
    square = torch.randn(4096, 4096, device="cuda")

    def more():
        with torch.cuda.stream(stream):
            for _ in range(4):
                square @ square

    yield more
    torch.cuda.synchronize()


def sums(loader, *, epochs=6, before=lambda: None, wait=False):
    """A sum per image of some epochs, each batch let go as soon as the work on it is queued."""
    queued = []
    for _ in range(epochs):
        for batch in loader:
            before()
            queued.append(batch.images.double().sum(dim=(1, 2, 3)))
            del batch
            if wait:
                torch.cuda.synchronize(loader.device)
    return torch.stack(queued).cpu()


@pytest.mark.parametrize(
    "recipe", [SOFT, Recipe(crop=SoftCrop(), mollify=Mollify()), MASKED], ids=["soft", "mollified", "masked"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_consumer_behind_on_a_stream_of_its_own_sees_its_own_batches(photo_folder, recipe, dtype):
    """The host runs ahead and drops batches whose work is still queued; the graph must not write over them."""
    with play(photo_folder, recipe, dtype=dtype) as loader:
        expected = sums(loader, wait=True)
        for stream in (torch.cuda.current_stream(), torch.cuda.Stream()):
            loader.set_epoch(0)
            with torch.cuda.stream(stream):
                assert torch.equal(sums(loader, before=lambda: torch.cuda._sleep(BUSY_CYCLES)), expected)


def test_the_jpeg_engines_write_in_order_while_the_gpu_is_busy(photo_folder, busy):
    """Engines of a GPU have been seen to write their output before the work that was queued ahead of it."""
    with play(photo_folder, hw_decoder_load=1.0) as engines, play(photo_folder, hw_decoder_load=0.0) as cores:
        idle = sums(engines, wait=True)
        engines.set_epoch(0)
        assert torch.equal(sums(engines, before=busy), idle)
        cores_only = sums(cores, wait=True)
    mean_difference = (idle - cores_only).abs() / (3 * 224 * 224)
    assert (mean_difference < 0.02).all(), "engines and cores decode different images"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_patches_lie_where_they_were_drawn_while_the_gpu_is_busy(noise_folder, busy, dtype):
    """The patches of a batch are sent from memory that must not change before they arrive."""
    # without an edge of the image in sight, behind which all is 0
    recipe = Recipe(crop=CenterCrop(), occlude=GridMask(spacing=(30, 80), probability=1.0))
    with play(noise_folder, recipe, dtype=dtype, details=True, prefetch=6) as loader:
        queued = []
        for _ in range(12):
            for batch in loader:
                busy()
                queued.append(((batch.images == 0).all(dim=1), batch.details["patches"]))
    for hidden, patches in queued:
        for image, rectangles in zip(hidden.cpu(), patches.tolist(), strict=True):
            drawn = torch.zeros(224, 224, dtype=torch.bool)
            for left, top, width, height in rectangles:
                drawn[top : top + height, left : left + width] = width > 0
            assert torch.equal(image, drawn)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("mix", [EVERY_SLOT["mix"], Mosaic(), Mixup()], ids=repr)
@pytest.mark.parametrize("channels_last", [False, True])
def test_no_step_after_the_graph_waits_for_the_gpu(noise_folder, monkeypatch, mix, channels_last):
    """A batch is finished while the GPU sleeps; torch may also find an operation that would wait, and raises."""
    recipe = Recipe(crop=SoftShift(), **EVERY_SLOT | {"mix": mix, "mollify": Mollify(1, 1, 2, 1)})
    options = {"targets": "soft", "index": True, "dtype": torch.bfloat16, "channels_last": channels_last}
    with Loader(noise_folder, recipe, 8, 32, device="cuda", **options) as loader:
        build, asleep = loader._batches.build, []

        def watched(images, plan, index):
            # Sets memory aside, for which it may have to wait. Pinned memory that an idle GPU has copied from is used
            # again at once, so that it would be less than what is needed while the GPU sleeps.
            torch.cuda._sleep(50 * BUSY_CYCLES)
            build(images.clone(), plan, index)
            torch.cuda.synchronize()
            torch.cuda._sleep(50 * BUSY_CYCLES)
            awake = torch.cuda.Event()
            awake.record()
            torch.cuda.set_sync_debug_mode("error")
            try:
                batch = build(images, plan, index)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            asleep.append(not awake.query())
            return batch

        monkeypatch.setattr(loader._batches, "build", watched)
        assert len(list(islice(loader, 2))) == 2
    assert asleep == [True] * 2, "finishing a batch waited for the GPU"


def test_a_loader_for_another_gpu_than_the_current_one(photo_folder):
    """Torch's default streams of all GPUs have one handle, and DALI must order memory by the right one."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two GPUs")

    def sleep():
        with torch.cuda.device("cuda:1"):
            torch.cuda._sleep(BUSY_CYCLES)

    with play(photo_folder, device="cuda:1") as loader:
        expected = sums(loader, wait=True)
        loader.set_epoch(0)
        assert torch.equal(sums(loader, before=sleep), expected)


def test_memory_set_aside_changes_no_pixel(photo_folder, tmp_path):
    convert(photo_folder, tmp_path / "set", ShardOptions())
    with play(tmp_path / "set", index=True) as known:
        assert known._options.decoder.largest == (427, 640)
        batches = [
            (known.source(int(i)), image) for batch in known for i, image in zip(batch.index, batch.images, strict=True)
        ]
        plain = dict(known._options.decoder.settings, preallocate_height_hint=0, preallocate_width_hint=0)
    with pytest.MonkeyPatch.context() as patch, play(tmp_path / "set", index=True) as unknown:
        patch.setattr(type(unknown._options.decoder), "settings", plain)
        again = [image for batch in unknown for image in batch.images]
    for (name, image), other in zip(batches, again, strict=True):
        torch.testing.assert_close(image, other, msg=name)


def test_memory_stays_level(photo_folder):
    """Of the whole GPU, as DALI's memory is not torch's."""

    def used():
        torch.cuda.synchronize()
        free, total = torch.cuda.mem_get_info()
        return total - free

    release_gpu_memory()  # what earlier tests left would be used again before more is taken
    with play(photo_folder, dtype=torch.float16, channels_last=True) as loader:
        sums(loader, epochs=2)
        early = used()
        sums(loader, epochs=30)
        assert used() <= early * 1.02
