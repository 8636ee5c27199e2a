"""What two ranks do, for test_distributed.py: run under torchrun, write what each saw as JSON."""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from softfeed.pipelines import Loader, Recipe, SoftCrop, presets
from softfeed.train.distributed import RankError, agree, from_main, joined, rank_errors, share_buffers
from softfeed.train.engine import Trainer, TrainingPlan, evaluate
from torch import nn

spec = importlib.util.spec_from_file_location("memory", Path(__file__).with_name("conftest.py"))
assert spec is not None
assert spec.loader is not None
memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 3, bias=False))


def caught(function, *args):
    try:
        function(*args)
    except (ValueError, FileNotFoundError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def only_on(rank, process):
    def function():
        if process.rank == rank:
            raise ValueError(f"from rank {rank}")
        return process.rank

    return function


def lonely(process):
    try:
        with rank_errors(process):
            raise OSError("cannot read x.jpg")
    except RankError as error:
        return str(error)


def played(data):
    """Positions that this rank's loader plays in one epoch of training and in an evaluation."""
    recipes = (Recipe(crop=SoftCrop()), presets.evaluation())
    for recipe in recipes:
        with Loader(data, recipe, 4, 32, device="cpu", index=True, num_threads=1) as loader:
            yield [position for batch in loader for position in batch.index.tolist()]


def main(data, output):
    problem = memory.make_problem()
    with joined("cpu") as process:
        place = {"rank": process.rank, "world_size": process.world_size}
        seen, scored = [], []
        train = memory.MemoryLoader(*problem, batch_size=16, log=seen, **place)
        validation = memory.MemoryLoader(*problem, batch_size=25, shuffle=False, log=scored, **place)
        trainer = Trainer(model(), TrainingPlan(epochs=2, lr=0.05), process)
        history = trainer.fit(train, validation)
        norm = nn.BatchNorm1d(1)
        norm.running_mean = torch.tensor([float(process.rank + 5)])
        share_buffers(norm, process)
        result = {
            "history": history,
            "weights": trainer.model[1].weight.detach().double().flatten().tolist(),
            "seen": seen[:48],  # of the first epoch
            "scored": scored[: len(scored) // 2],
            "scores": evaluate(trainer.model, validation, process=process).summary(),
            "from_main": [from_main(lambda: process.rank, process), caught(from_main, only_on(0, process), process)],
            "from_main_elsewhere": caught(from_main, only_on(1, process), process),
            "agree": [agree(lambda: process.rank, process), caught(agree, only_on(1, process), process)],
            "shared_mean": norm.running_mean.item(),
            "played": list(played(data)),
            "lonely": lonely(process),
        }
        Path(output, f"rank{process.rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
