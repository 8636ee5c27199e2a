"""When a run is saved within an epoch, and how it is asked to end."""

import signal

import pytest
from softfeed.train import checkpoint, saving
from softfeed.train.engine import Trainer, TrainingPlan
from softfeed.train.saving import Saver, Stopped
from torch import nn


class Clock:
    """A clock that moves by `step` at each look."""

    def __init__(self, step=0.0):
        self.now, self.step = 1000.0, step

    def monotonic(self):
        self.now += self.step
        return self.now


@pytest.fixture
def training(problem, memory_loader, tmp_path, monkeypatch):
    """Trains for two epochs of 6 steps with a saver, and tells (epoch, step) of all that was saved within them."""
    saved = []
    real = checkpoint.save

    def save(path, state):
        real(path, state)
        if path.name == "last.pt":
            saved.append((state.epoch, None if state.running is None else state.running["step"]))

    monkeypatch.setattr(checkpoint, "save", save)

    def train(*, at_step=None, **rules):
        trainer = Trainer(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), TrainingPlan(epochs=2, lr=0.05))
        saver = Saver(trainer, tmp_path / "run", {}, ("a", "b", "c"), **rules)

        def between():
            if at_step is not None:
                at_step(trainer.epoch, trainer.running.step)
            saver.between()

        with saver.watching():
            trainer.fit(memory_loader(*problem, batch_size=16), after_epoch=saver.after_epoch, between=between)

    return train, saved


def test_without_a_rule_only_whole_epochs_are_saved(training):
    train, saved = training
    train()
    assert saved == [(1, None), (2, None)]


def test_every_so_many_steps(training):
    train, saved = training
    train(every_steps=4)
    assert saved == [(0, 4), (1, None), (1, 4), (2, None)]


def test_every_so_many_minutes(training, monkeypatch):
    train, saved = training
    # the clock is read once a step, and once more where something is saved
    monkeypatch.setattr(saving, "time", Clock(60.0))
    train(every_minutes=3)
    assert saved == [(0, 3), (0, 6), (1, None), (1, 3), (1, 6), (2, None)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends(training, tmp_path, number, capfd):
    train, saved = training
    before = signal.getsignal(number)

    def at_step(epoch, step):
        if (epoch, step) == (1, 2):
            signal.raise_signal(number)
            signal.raise_signal(number)  # as torchrun repeats it

    with pytest.raises(Stopped, match=f"interrupted; the run is saved in {tmp_path / 'run'}, go on with --resume"):
        train(at_step=at_step)
    assert saved == [(1, None), (1, 2)]
    assert capfd.readouterr().err == "ending after this step; once more to end at once\n"
    assert signal.getsignal(number) is before


def test_a_second_request_ends_at_once(training, monkeypatch):
    train, saved = training
    monkeypatch.setattr(saving, "time", Clock(2.0))

    def at_step(epoch, step):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt) as ended:
        train(at_step=at_step)
    assert not isinstance(ended.value, Stopped)
    assert not saved


def test_a_diverged_epoch_is_not_saved(training, problem):
    train, saved = training
    problem[0][:] = float("inf")
    with pytest.raises(FloatingPointError, match="loss must stay finite, got nan in epoch 1; lower the lr"):
        train(every_steps=2)
    assert not saved
