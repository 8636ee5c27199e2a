import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from softfeed.pipelines import cores
from softfeed.train.distributed import Process, RankError, joined, pick_device, rank_errors, seed_step
from softfeed.train.engine import Trainer, TrainingPlan, evaluate
from softfeed.train.threads import share_cores
from torch import nn


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """What each of two gloo processes saw."""
    output = tmp_path_factory.mktemp("ranks")
    for index in range(40):
        image = output / "images" / f"class{index % 2}" / f"{index:02d}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 36), (index, 0, 0)).save(image)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(Path(__file__).with_name("two_ranks.py"))
    run = subprocess.run(
        [*torchrun, script, str(output / "images"), str(output)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return [json.loads((output / f"rank{rank}.json").read_text()) for rank in range(2)]


def test_ranks_see_disjoint_samples_that_together_are_the_whole_set(ranks):
    for what in ("seen", "scored"):
        assert not set(ranks[0][what]) & set(ranks[1][what])
        assert sorted(ranks[0][what] + ranks[1][what]) == list(range(96))
    for first, second in zip(ranks[0]["played"], ranks[1]["played"], strict=True):  # training, evaluation
        assert len(first) == len(second) == 20
        assert sorted(first + second) == list(range(40))


def test_two_ranks_train_as_one_process_with_the_batch_of_both(ranks, problem, memory_loader):
    """The mean of two ranks' gradients is the gradient of both batches together; no BatchNorm in this model."""

    class BothRanks(memory_loader):
        """Each step, the batches that the two ranks have."""

        def __len__(self):
            return 3

        def __iter__(self):
            for rank in range(2):
                halves.append(memory_loader(*problem, batch_size=16, rank=rank, world_size=2))
                halves[-1].set_epoch(self.epoch)
            for batches in zip(*halves[-2:], strict=True):
                yield tuple(torch.cat(parts) for parts in zip(*batches, strict=True))

    halves = []
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3, bias=False))
    trainer = Trainer(model, TrainingPlan(epochs=2, lr=0.05))
    history = trainer.fit(BothRanks(*problem, batch_size=16), memory_loader(*problem, batch_size=50, shuffle=False))
    assert ranks[0]["weights"] == ranks[1]["weights"]
    ours = model[1].weight.detach().double().flatten()  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(ranks[0]["weights"], ours, rtol=1e-5, atol=1e-6)
    for name in ("train_loss", "top1", "top5", "nll", "ece"):
        one, two = ([row[name] for row in rows] for rows in (history, ranks[0]["history"]))
        np.testing.assert_allclose(two, one, rtol=1e-5, err_msg=name)
        assert two == [row[name] for row in ranks[1]["history"]]


def test_scores_are_those_of_one_process_and_the_same_on_all_ranks(ranks, problem, memory_loader):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3, bias=False))
    with torch.no_grad():
        weight = torch.tensor(ranks[0]["weights"]).reshape(3, 192)
        model[1].weight.copy_(weight)  # pyright: ignore[reportCallIssue, reportArgumentType]
    alone = evaluate(model, memory_loader(*problem, batch_size=96, shuffle=False)).summary()
    for rank in range(2):
        assert ranks[rank]["scores"] == pytest.approx(alone, rel=1e-6)


def test_evaluation_uses_the_running_means_of_rank_0(ranks):
    assert [rank["shared_mean"] for rank in ranks] == [5.0, 5.0]


def test_an_error_on_one_rank_reaches_all(ranks):
    for rank in range(2):
        assert ranks[rank]["from_main"] == [0, "ValueError: from rank 0"]
        assert ranks[rank]["from_main_elsewhere"] is None  # rank 1 does not run it
        assert ranks[rank]["agree"] == [rank, "ValueError: from rank 1"]
        assert ranks[rank]["lonely"] == f"rank {rank} of 2: cannot read x.jpg"


def test_without_torchrun_a_run_is_one_process(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    with joined("cpu") as process:
        assert process == Process(torch.device("cpu"), 0, 1)
        assert process.is_main
        assert not torch.distributed.is_initialized()


def test_the_device_must_be_there(monkeypatch):
    with pytest.raises(ValueError, match="device must be 'cpu' or 'cuda', got 'tpu'"):
        pick_device("tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")
    with pytest.raises(ValueError, match="device must be present, got 'cuda' where PyTorch sees no GPU; use"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert pick_device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match="must be at most its 2 GPUs, got 3; lower"):
        pick_device("cuda")


def test_too_many_processes_fail_alike_on_every_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    messages = set()
    for rank in range(4):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        with pytest.raises(ValueError, match="must be at most its 2 GPUs, got 4; lower --nproc-per-node") as caught:
            pick_device()
        messages.add(str(caught.value))
    assert len(messages) == 1


FULL = """CUDA out of memory. Tried to allocate 20.00 MiB. GPU 1 has a total capacity of 79.15 GiB of
which 4.25 MiB is free.
Including non-PyTorch memory, this process has 79.14 GiB memory in use. See documentation for Memory Management"""


def test_a_full_gpu_on_one_rank_is_one_line_that_says_what_to_do():
    rank_1 = Process(torch.device("cpu"), 1, 2)
    with pytest.raises(RankError, match=r"^rank 1 of 2: GPU memory .*4.25 MiB is free; use a smaller --batch-size$"):
        with rank_errors(rank_1):
            raise torch.OutOfMemoryError(FULL)
    with pytest.raises(torch.OutOfMemoryError), rank_errors(Process(torch.device("cpu"))):
        raise torch.OutOfMemoryError(FULL)


def test_each_rank_and_step_has_its_own_generator_state():
    drawn = set()
    for epoch in range(3):
        for step in range(3):
            for rank in range(3):
                seed_step(seed=1, epoch=epoch, step=step, rank=rank)
                drawn.add(torch.rand(1).item())
    assert len(drawn) == 27
    seed_step(seed=1, epoch=2, step=1, rank=2)
    assert torch.rand(1).item() in drawn


def test_cores_are_shared_between_data_and_network_and_between_ranks(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(cores, "available", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cpu, gpu = Process(torch.device("cpu")), Process(torch.device("cuda", 0))
    try:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
        assert (share_cores(cpu), torch.get_num_threads()) == (4, 8)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        assert (share_cores(cpu), torch.get_num_threads()) == (2, 4)
        assert share_cores(gpu) == 4
        assert share_cores(gpu, 3) == 3
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
        assert (share_cores(cpu), torch.get_num_threads()) == (1, 1)
        with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
            share_cores(cpu, 0)
    finally:
        torch.set_num_threads(threads)


def test_threads_that_the_user_has_set_are_left_alone(monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setattr(cores, "available", lambda: 8)
    cpu = Process(torch.device("cpu"))
    try:
        for processes, variable, expected in ((1, "1", 3), (2, "2", 3), (1, "", 8), (2, "1", 4)):  # torchrun sets the 1
            torch.set_num_threads(3)  # as torch itself would by the variable
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
            monkeypatch.setenv("OMP_NUM_THREADS", variable)
            assert share_cores(cpu) == 4 // processes
            assert torch.get_num_threads() == expected
    finally:
        torch.set_num_threads(threads)
