import numpy as np
import pytest
import torch
from softfeed.train import checkpoint, engine, timing
from softfeed.train.engine import Trainer, TrainingPlan, evaluate
from softfeed.train.losses import SoftLoss
from softfeed.train.models import build
from softfeed.train.progress import Progress
from torch import nn


def small_model(seed=0, dropout=0.0):
    torch.manual_seed(seed)
    return nn.Sequential(build("small-cnn", 3, image_size=8), nn.Dropout(dropout))


def test_loss_falls_and_the_classes_are_learned(problem, memory_loader):
    plan = TrainingPlan(epochs=6, lr=0.05)
    trainer = Trainer(small_model(), plan)
    history = trainer.fit(memory_loader(*problem, batch_size=16), memory_loader(*problem, batch_size=40, shuffle=False))
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2
    assert history[-1]["top1"] > 0.95 > 0.34
    assert set(history[0]) == {
        *("epoch", "train_loss", "lr", "images_per_s", "data_wait"),
        "top1",
        "top5",
        "nll",
        "ece",
    }


def test_the_first_epoch_of_a_call_shows_its_progress_early(problem, memory_loader, monkeypatch):
    early = []

    class Seen(Progress):
        def __init__(self, **settings):
            early.append(settings["early"])
            super().__init__(**settings)

    monkeypatch.setattr(engine, "Progress", Seen)
    trainer = Trainer(small_model(), TrainingPlan(epochs=3, lr=0.05))
    trainer.epoch = 1  # as a resumed run
    trainer.fit(memory_loader(*problem, batch_size=16))
    assert early == [True, False]


def test_steps_are_those_of_sgd_written_out():
    """Against float64 numpy: softmax gradient, weight decay, Nesterov momentum, warm-up and cosine, all by hand."""
    rng = np.random.default_rng(5)
    images, labels = rng.normal(size=(8, 3, 2, 2)), np.arange(8) % 4
    confidence = rng.uniform(0.25, 1, 8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4, bias=False)).double()
    weights = model[1].weight.detach().numpy().copy()  # pyright: ignore[reportAttributeAccessIssue]

    class WholeSet:
        def __len__(self):
            return 2

        def set_epoch(self, epoch):
            pass

        def __iter__(self):
            for half in (slice(0, 4), slice(4, 8)):
                yield tuple(torch.from_numpy(x[half]) for x in (images, labels, confidence))

    loss = SoftLoss("weight")
    plan = TrainingPlan(epochs=3, lr=0.3, weight_decay=0.01, warmup_epochs=1, loss=loss)
    Trainer(model, plan).fit(WholeSet())

    velocity = np.zeros_like(weights)
    cosine = [0.3 * 0.5 * (1 + np.cos(np.pi * step / 4)) for step in range(4)]
    for step, lr in enumerate([0.15, 0.3, *cosine]):
        half = slice(0, 4) if step % 2 == 0 else slice(4, 8)
        x, y, p = images[half].reshape(4, 12), labels[half], confidence[half]
        logits = x @ weights.T
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        gradient = ((softmax - np.eye(4)[y]) * p[:, None]).T @ x / 4 + 0.01 * weights
        velocity = 0.9 * velocity + gradient
        weights -= lr * (gradient + 0.9 * velocity)
    # The trainer computes the loss in float32, as it must after a pass in bfloat16.
    np.testing.assert_allclose(model[1].weight.detach().numpy(), weights, rtol=1e-5, atol=1e-6)


def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(problem, memory_loader, tmp_path):
    plan = TrainingPlan(epochs=4, lr=0.05, seed=3)
    whole = Trainer(small_model(dropout=0.2), plan)
    whole.fit(memory_loader(*problem, batch_size=16))

    first = Trainer(small_model(dropout=0.2), plan)

    def stop_after_two(row):
        if row["epoch"] == 2:
            checkpoint.save(tmp_path / "last.pt", first.checkpoint({"seed": 3}, ("a", "b", "c")))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.fit(memory_loader(*problem, batch_size=16), after_epoch=stop_after_two)
    torch.manual_seed(99)  # the generators of the new process are anywhere
    resumed = Trainer(small_model(seed=1, dropout=0.2), plan)
    resumed.restore(checkpoint.load(tmp_path / "last.pt"))
    assert resumed.epoch == 2
    history = resumed.fit(memory_loader(*problem, batch_size=16))

    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    assert [row["train_loss"] for row in history] == [row["train_loss"] for row in whole.history]
    momentum = [state["momentum_buffer"] for state in whole.optimizer.state.values()]
    assert momentum
    for one, two in zip(momentum, resumed.optimizer.state.values(), strict=True):
        assert torch.equal(one, two["momentum_buffer"])


@pytest.fixture
def one_thread():
    """So small a network is not worth more, and threads wait for each other where others compute, too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("stop", range(1, 17))
def test_a_run_stopped_anywhere_equals_the_uninterrupted_one_bit_for_bit(problem, memory_loader, tmp_path, stop):
    """After each of 6 steps of training and before each of 2 of validation, in two epochs."""
    plan = TrainingPlan(epochs=2, lr=0.05, seed=3)

    def fit(trainer, between=None):
        validation = memory_loader(*problem, batch_size=48, shuffle=False)
        return trainer.fit(memory_loader(*problem, batch_size=16), validation, between=between)

    whole = Trainer(small_model(dropout=0.2), plan)
    fit(whole)
    first, calls = Trainer(small_model(dropout=0.2), plan), []

    def stopped():
        calls.append(first.running.step)
        if len(calls) == stop:
            checkpoint.save(tmp_path / "last.pt", first.checkpoint({}, ("a", "b", "c")))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(first, stopped)
    resumed = Trainer(small_model(seed=1, dropout=0.2), plan)
    resumed.restore(checkpoint.load(tmp_path / "last.pt"))
    assert resumed.steps_to_skip == calls[-1] == min((stop - 1) % 8 + 1, 6)
    history = fit(resumed)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    for name in ("train_loss", "lr", "nll", "top1"):
        assert [row[name] for row in history] == [row[name] for row in whole.history], name


def test_batches_without_a_state_are_not_saved_within_an_epoch(problem):
    class Stateless:
        def __len__(self):
            return 1

        def set_epoch(self, epoch):
            pass

        def __iter__(self):
            yield problem

    trainer = Trainer(small_model(), TrainingPlan(epochs=1, lr=0.05))
    with pytest.raises(TypeError, match=r"batches must have state_dict and load_state_dict .*, got Stateless"):
        trainer.fit(Stateless(), between=lambda: trainer.checkpoint({}, ("a", "b", "c")))
    trainer = Trainer(small_model(), TrainingPlan(epochs=1, lr=0.05))
    trainer.fit(Stateless(), after_epoch=lambda row: trainer.checkpoint({}, ("a", "b", "c")))


def test_fields_after_soft_targets_are_no_confidence(problem, memory_loader):
    images, labels, _ = problem
    targets = nn.functional.one_hot(labels, 3).float() * 0.8

    def losses(*fields):
        class Batches:
            def __len__(self):
                return 1

            def set_epoch(self, epoch):
                pass

            def __iter__(self):
                yield images, targets, *fields

        return Trainer(small_model(), TrainingPlan(epochs=1, lr=0.05)).fit(Batches())[0]["train_loss"]

    assert losses(torch.arange(len(labels))) == losses()


def test_dropout_differs_between_epochs_and_repeats_for_a_seed(problem, memory_loader):
    def losses(seed):
        # A rate of 1e-12 leaves the weights where they are, so only dropout tells the epochs apart.
        frozen = nn.Sequential(nn.Dropout(0.5), nn.Flatten(), nn.Linear(192, 3, bias=False))
        with torch.no_grad():
            frozen[2].weight.copy_((torch.arange(576) % 7).reshape(3, 192) * 0.01)
        trainer = Trainer(frozen, TrainingPlan(epochs=2, lr=1e-12, seed=seed))
        return [row["train_loss"] for row in trainer.fit(memory_loader(*problem, batch_size=96, shuffle=False))]

    assert losses(0) == losses(0)
    assert len({*losses(0), *losses(1)}) == 4


def test_data_wait_is_the_share_of_time_inside_the_loader(problem, memory_loader, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    class Slow(memory_loader):
        def __iter__(self):
            for batch in super().__iter__():
                now[0] += 0.3
                yield batch

    class Network(nn.Linear):
        def forward(self, input):
            now[0] += 0.1
            return super().forward(input.flatten(1))

    row = Trainer(Network(192, 3), TrainingPlan(epochs=1, lr=0.05)).fit(Slow(*problem, batch_size=16))[0]
    assert row["data_wait"] == pytest.approx(0.75)
    assert row["images_per_s"] == pytest.approx(16 / 0.4)


def test_a_diverged_run_stops_before_it_is_saved(problem, memory_loader):
    images, labels, confidence = problem
    saved = []
    trainer = Trainer(small_model(), TrainingPlan(epochs=2, lr=0.1))
    with pytest.raises(FloatingPointError, match="loss must stay finite, got nan in epoch 1; lower the lr"):
        trainer.fit(memory_loader(images * np.inf, labels, confidence, batch_size=16), after_epoch=saved.append)
    assert not saved


def test_evaluation_neither_trains_nor_changes_the_mode(problem, memory_loader):
    model = small_model(dropout=0.5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batches = memory_loader(*problem, batch_size=40, shuffle=False)
    scores = evaluate(model, batches)
    assert (scores.num_samples, model.training) == (96, True)
    assert scores == evaluate(model, batches)  # dropout is off
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_evaluation_equals_one_pass_over_everything(problem, memory_loader):
    model = small_model().eval()
    images, labels, _ = problem
    scores = evaluate(model, memory_loader(*problem, batch_size=36, shuffle=False))  # 36, 36, 24
    with torch.no_grad():
        logits = model(images)
    np.testing.assert_allclose(scores.nll, nn.functional.cross_entropy(logits, labels).item(), rtol=1e-6)
    assert scores.top1 == (logits.argmax(dim=1) == labels).double().mean().item()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"lr": -0.1}, "lr must be positive and finite, got -0.1"),
        ({"weight_decay": -1.0}, "weight_decay must be finite and not negative, got -1.0"),
        ({"momentum": 1.0}, r"momentum must be in \(0, 1\), got 1.0"),
        ({"warmup_epochs": 3.0}, r"warmup_epochs must be in \[0, 2\], got 3.0"),
        ({"seed": -1}, "seed must not be negative, got -1"),
    ],
)
def test_impossible_plans_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TrainingPlan(**{"epochs": 2, "lr": 0.1, **settings})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, and PyTorch sees none")
def test_training_on_a_gpu_learns_as_well(problem, memory_loader):
    from softfeed.train.distributed import Process

    process = Process(torch.device("cuda", 0))
    trainer = Trainer(small_model(), TrainingPlan(epochs=6, lr=0.05), process)
    history = trainer.fit(memory_loader(*problem, batch_size=16), memory_loader(*problem, batch_size=40, shuffle=False))
    assert history[-1]["train_loss"] < history[0]["train_loss"] / 2
    assert history[-1]["top1"] > 0.95
    assert 0 <= history[-1]["data_wait"] <= 1
    # bfloat16 has 8 bits of mantissa, so logits agree to about 1 part in 100.
    on_cpu = evaluate(trainer.model.cpu(), memory_loader(*problem, batch_size=40, shuffle=False))
    np.testing.assert_allclose(history[-1]["nll"], on_cpu.nll, atol=0.02)
