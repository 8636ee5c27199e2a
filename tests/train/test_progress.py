import io

import pytest
import torch
from softfeed.train import progress
from softfeed.train.distributed import Process
from softfeed.train.progress import Curves, Progress, epoch_line
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROW = {
    "epoch": 2.0,
    "train_loss": 1.25,
    "lr": 0.05,
    "images_per_s": 1234.5,
    "data_wait": 0.125,
    "top1": 0.5,
    "top5": 0.75,
    "nll": 2.0,
    "ece": 0.1,
}
MAIN, OTHER = Process(torch.device("cpu")), Process(torch.device("cpu"), rank=1, world_size=2)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_an_epoch_is_one_line():
    line = epoch_line(ROW, epochs=3)
    assert line == (
        "epoch 2/3  loss 1.2500  1,234 images/s  data wait 12%  lr 0.05  top-1 50.0%  top-5 75.0%  NLL 2.000  ECE 0.100"
    )
    assert "top-1" not in epoch_line({name: ROW[name] for name in list(ROW)[:5]}, epochs=3)


@pytest.mark.parametrize(("stream", "seconds"), [(Terminal, 1.0), (io.StringIO, 30.0)])
def test_numbers_are_due_every_second_on_a_terminal_and_rarely_in_a_log(monkeypatch, stream, seconds):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with Progress(total=9, label="epoch 1/2", process=MAIN, stream=stream()) as bar:
        assert not bar.advance()
        now[0] = seconds
        assert bar.advance()
        bar.show(loss=1.0, images_per_s=2000.0, data_wait=0.1)
        assert not bar.advance()


def test_a_log_may_begin_with_an_early_line(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    due = []
    with Progress(total=99, label="epoch 1/2", process=MAIN, stream=io.StringIO(), early=True) as bar:
        for second in range(70):
            now[0] = float(second)
            if bar.advance():
                due.append(second)
                bar.show(loss=1.0, images_per_s=2000.0, data_wait=0.1)
    assert due == [3, 33, 63]


def test_a_terminal_gets_a_bar_and_a_log_gets_lines():
    for stream in (Terminal(), io.StringIO()):
        with Progress(total=9, label="epoch 1/2", process=MAIN, stream=stream) as bar:
            bar.advance()
            bar.show(loss=1.0, images_per_s=2000.0, data_wait=0.1)
        assert "loss 1.0000, 2,000 images/s, data wait 10%" in stream.getvalue()
        assert ("\r" in stream.getvalue()) == stream.isatty()


def test_other_ranks_show_nothing():
    stream = Terminal()
    with Progress(total=2, label="epoch 1/2", process=OTHER, stream=stream) as bar:
        assert [bar.advance(), bar.advance()] == [False, False]
    assert not stream.getvalue()


def test_curves_can_be_read_back_and_a_resumed_run_replaces_its_later_points(tmp_path):
    first = Curves(tmp_path, first_epoch=1)
    for epoch, loss in ((1.0, 3.0), (2.0, 2.0)):
        first.add({**ROW, "epoch": epoch, "train_loss": loss})
    first.close()
    second = Curves(tmp_path, first_epoch=2)
    second.add({**ROW, "train_loss": 1.5})
    second.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    names = ["train/data_wait", "train/images_per_s", "train/loss", "train/lr"]
    assert sorted(events.Tags()["scalars"]) == names + [f"validation/{n}" for n in ("ece", "nll", "top1", "top5")]
    assert [(point.step, point.value) for point in events.Scalars("train/loss")] == [(1, 3.0), (2, 1.5)]
