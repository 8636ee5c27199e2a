"""The resize on a CPU against the definition in float64 and against Pillow, and two graphs against one."""

import signal
from concurrent.futures import wait
from threading import Event, Lock, Semaphore, Timer
from time import sleep

import numpy as np
import pytest
import torch
from nvidia.dali import fn, types
from nvidia.dali.pipeline import pipeline_def
from PIL import Image
from softfeed.pipelines import CenterCrop, Loader, RandAugment, Recipe, SoftCrop, TrivialAugment, loader, presets, split
from softfeed.pipelines.cropping import resized, resized_on_cpu
from softfeed.pipelines.draws import Draws
from softfeed.pipelines.plan import GraphWork, plan
from softfeed.pipelines.runner import GraphRunner
from torchvision.transforms import functional

from .conftest import in_fork

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed; it comes with softfeed[test]")
example, given, st = hypothesis.example, hypothesis.given, hypothesis.strategies

SIDES = st.integers(1, 300)


@pytest.fixture(autouse=True)
def quick_torch(monkeypatch):
    """The CPU is one for which torch has its quick way; on others the results are the same, only slower."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


def weights(before, after):
    """Triangles as wide as an output pixel is in the source, and at least two pixels, that sum to 1."""
    scale = before / after
    centre, source = (np.arange(after)[:, None] + 0.5) * scale, np.arange(before)[None] + 0.5
    triangle = np.maximum(0, 1 - np.abs(source - centre) / max(scale, 1))
    return triangle / triangle.sum(axis=1, keepdims=True)


@given(SIDES, SIDES, SIDES, SIDES, st.integers(0, 2**32 - 1))
@example(1, 1, 5, 7, 0)
@example(1, 1, 224, 224, 0)
@example(224, 224, 224, 224, 0)
@example(1, 300, 224, 1, 0)
@example(300, 1, 1, 224, 0)
def test_like_the_definition_and_like_pillow(height, width, new_height, new_width, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    result = resized_on_cpu(image, new_height, new_width)
    assert result.flags.c_contiguous  # which DALI asks of its inputs
    exact = np.einsum(
        "ij,jkc,lk->ilc", weights(height, new_height), image.astype(float), weights(width, new_width), optimize=True
    )
    assert np.abs(result - exact).max() < 1.1  # rounded after each of the two axes
    pillow = np.asarray(Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR))
    assert np.abs(result.astype(int) - pillow).max() <= 2  # either is within 1 of what is exact


def test_a_part_of_an_image_is_resized_where_it_lies():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    part = image[3:20, 5:49]
    np.testing.assert_array_equal(resized_on_cpu(part, 11, 13), resized_on_cpu(part.copy(), 11, 13))


def test_hard_crops_are_those_of_torchvision(photo_folder):
    """At the border, too, where the graph's own resize would repeat the outermost pixels."""
    recipe = presets.by_name("hard-imagenet")
    std = 255 * np.array(recipe.normalize.std)[:, None, None]
    with Loader(photo_folder, recipe, 5, device="cpu", index=True, details=True) as loader:
        for batch in loader:
            windows = batch.details["window"].astype(int).tolist()
            rows = zip(batch.images, windows, batch.details["flipped"], batch.index.tolist(), strict=True)
            for image, (left, top, width, height), flipped, index in rows:
                with Image.open(loader.source(index)) as opened:
                    expected = functional.resized_crop(opened.convert("RGB"), top, left, height, width, [224, 224])
                expected = functional.hflip(expected) if flipped else expected
                tensor = functional.normalize(
                    functional.to_tensor(expected), list(recipe.normalize.mean), list(recipe.normalize.std)
                )
                assert (abs(image - tensor).numpy() * std).max() < 1.02


@pytest.fixture(scope="module")
def resized_by_dali():
    """The resize inside the graph, for one image."""

    @pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def graph():
        image = fn.external_source(name="image", layout="HWC", ndim=3, dtype=types.UINT8)
        return resized(image, {"resized": fn.external_source(name="resized", ndim=1, dtype=types.FLOAT)})

    pipeline, one_at_a_time = graph(), Lock()
    pipeline.build()

    def resize(image, height, width):
        with one_at_a_time:
            (result,) = pipeline.run(image=[image], resized=np.array([[height, width]], np.float32))
            return np.array(result.at(0))

    return resize


RECIPES = {
    "plain": Recipe(crop=SoftCrop()),
    "views": Recipe(crop=SoftCrop(), views=2),
    "policy": Recipe(crop=SoftCrop(), policy=RandAugment()),
}


@pytest.mark.parametrize("kind", ["folder", "encoded", "raw"])
@pytest.mark.parametrize("recipe", RECIPES)
def test_two_graphs_give_what_one_gives(noise_sets, monkeypatch, resized_by_dali, kind, recipe):
    """The one graph is what a GPU runs. With its resize in the place of torch's, not a bit differs."""

    def played():
        with Loader(noise_sets[kind], RECIPES[recipe], 8, 32, device="cpu") as played:
            batches = [batch.images for batch in played]
            return type(played._player._runner), torch.cat(batches)

    monkeypatch.setattr(split, "resized_on_cpu", resized_by_dali)
    two_graphs, two = played()
    monkeypatch.setattr(loader, "in_two_graphs", lambda recipe, device: False)
    one_graph, one = played()
    assert (two_graphs, one_graph) == (split.SplitRunner, GraphRunner)
    torch.testing.assert_close(two, one, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.*use of fork\\(\\) may lead to deadlocks:DeprecationWarning")
@pytest.mark.parametrize("shape", [(224, 224), (300, 300), (1, 1), (224, 100)])
def test_a_forked_child_resizes(shape):
    """torch's own threads, which the parent has started, are not there."""
    torch.rand(1000, 1000).add_(1)
    image = np.ones((*shape, 3), np.uint8)
    assert in_fork(lambda: resized_on_cpu(image, 224, 224).sum()) == str(224 * 224 * 3)


@pytest.mark.parametrize("capability", ["DEFAULT", "AVX2"])
def test_one_graph_where_torch_has_no_quick_way(noise_sets, monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with Loader(noise_sets["folder"], RECIPES["plain"], 8, 32, device="cpu") as played:
        assert len(list(played)) == 4
        assert isinstance(played._player._runner, split.SplitRunner) == (capability == "AVX2")


@pytest.fixture
def decoding(noise_sets):
    """Builds what decodes batches of 8 and leaves the images where they are, and the batches of an epoch for it."""
    with Loader(noise_sets["encoded"], presets.evaluation(), 8, 32, device="cpu", prefetch=3) as played:
        prepare = played._preparer.of_epoch(0, shuffle=True)
        batches = [prepare(step) for step in played._steps_from(0)]
        runner = played._new_runner(batches[0].plan.inputs, until="decode")

        def submit(batch):
            runner.submit(batch.images, batch.plan.inputs)

        yield runner, submit, batches
        runner.close()


def test_decoded_images_lie_where_earlier_ones_lay(decoding):
    """New places for each batch would be memory that comes and goes in heaps by tens of megabytes."""
    runner, submit, batches = decoding
    for batch in batches[:2]:
        submit(batch)
    places = []
    for batch in batches * 8:
        submit(batch)
        places.append(runner.collect()[0].ctypes.data)
    assert len(set(places[len(places) // 2 :])) <= 4


def test_decoded_images_are_good_until_the_next_are_asked_for(decoding):
    """Also those of a new graph's first batches, which are fewer than it starts together."""
    runner, submit, batches = decoding
    for _ in range(2):
        submit(batches[0])
        images = runner.collect()
        copies = [image.copy() for image in images]
        for batch in batches[1:]:
            submit(batch)
        sleep(0.2)  # they have run
        for image, copy in zip(images, copies, strict=True):
            np.testing.assert_array_equal(image, copy)
        for _ in batches[1:]:
            runner.collect()


def test_an_interrupted_wait_leaves_nothing_at_work(noise_sets, monkeypatch):
    """What the thread resizes lies in memory that the next decode writes to."""
    go_on, resize, close = Event(), split.resized_on_cpu, split.SplitRunner.close
    at_work, after_closing = [], []

    def slow(*arguments):
        at_work.append(1)
        assert go_on.wait(10)
        image = resize(*arguments)
        at_work.pop()
        return image

    def closed(runner):
        close(runner)
        after_closing.append(len(at_work))

    def interrupt(*_):
        Timer(0.3, go_on.set).start()
        raise KeyboardInterrupt

    monkeypatch.setattr(split, "resized_on_cpu", slow)
    monkeypatch.setattr(split.SplitRunner, "close", closed)
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with Loader(noise_sets["folder"], RECIPES["plain"], 8, 32, device="cpu", num_threads=1) as played:
            batches = iter(played)
            go_on.set()
            next(batches)  # and the thread goes on with the second batch
            wait([played._player._runner._next], 10)
            go_on.clear()
            next(batches)  # and with the third, which takes longer now
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the signal may come before the wait
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                next(batches)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert after_closing == [0]


@pytest.mark.parametrize("prefetch", [2, 4])
def test_the_next_batch_is_finished_while_the_consumer_is_busy(noise_sets, monkeypatch, prefetch):
    finished = Semaphore(0)
    collect = GraphRunner.collect

    def told(runner):
        images = collect(runner)
        if isinstance(images, torch.Tensor):  # the second graph's
            finished.release()
        return images

    monkeypatch.setattr(GraphRunner, "collect", told)
    with Loader(noise_sets["folder"], RECIPES["plain"], 8, 32, device="cpu", prefetch=prefetch) as played:
        for _ in played:
            assert finished.acquire(timeout=10)  # this batch
            break
        batches = iter(played)
        next(batches)
        assert finished.acquire(timeout=10)
        assert finished.acquire(timeout=10)  # nobody has asked for it


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(0, 100))
@example(height=106, width=2857, more=88)  # 4,096.8 pixels long, of which 4,096 are kept
def test_whole_images_are_cut_where_torchvision_cuts_them(height, width, more):
    """For both ways on from the resize, of which one counts in shares of what is free."""
    size = 64
    crop, shape = CenterCrop(size + more), (np.array([height]), np.array([width]))
    placed, canvas = (
        plan(
            Recipe(crop=crop, policy=policy),
            Draws(0, 0, 0, 1),
            shape,
            size=size,
            epoch=0,
            work=GraphWork(whole_images=True),
        ).inputs
        for policy in (None, TrivialAugment())
    )
    resized = placed["resized"][0]
    expected = functional.resize(torch.empty(1, height, width, device="meta"), size + more).shape[1:]
    if max(expected) > 64 * size:  # not in one piece
        assert resized.tolist() == [size, size]
        assert canvas["canvas_start"].tolist() == [[0, 0]]
        return
    assert placed["extent"].tolist() == [[height, width]]
    assert resized.tolist() == list(expected)
    start = [round((side - size) / 2.0) for side in expected]
    assert canvas["canvas_start"].tolist() == [start]
    assert np.rint(placed["position"] * (resized - size)).tolist() == [start]
