"""What frameworks look for on a loader, with the frameworks themselves where they are installed."""

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
import torch
from softfeed.pipelines import Loader, Recipe, SoftCrop, presets
from torch import nn
from torch.utils.data import SequentialSampler

SOFT = Recipe(crop=SoftCrop())


def training(folder, **options):
    return Loader(folder, SOFT, 8, 16, device="cpu", index=True, **options)


def validation(folder, **options):
    return Loader(folder, presets.evaluation(), 8, 16, device="cpu", index=True, **options)


def order(loader):
    return [batch.index.tolist() for batch in loader]


def test_the_data_set_is_that_of_an_image_folder(noise_folder):
    from torchvision.datasets import ImageFolder

    with training(noise_folder) as loader:
        dataset, expected = loader.dataset, ImageFolder(str(noise_folder))
        assert len(dataset) == len(expected) == 37
        assert dataset.classes == expected.classes
        assert dataset.class_to_idx == expected.class_to_idx
        assert dataset.targets == expected.targets
        assert dataset.root == expected.root
        assert (loader.batch_size, loader.drop_last, loader.batch_sampler) == (8, True, None)
    with validation(noise_folder) as loader:
        assert not loader.drop_last


@pytest.mark.parametrize("rank", [0, 1])
def test_the_sampler_tells_and_sets_what_is_played(noise_folder, rank):
    with training(noise_folder, rank=rank, world_size=2) as loader:
        sampler = loader.sampler
        assert not isinstance(sampler, SequentialSampler)
        assert len(sampler) == 16
        for epoch in (0, 5):
            sampler.set_epoch(epoch)
            told = list(sampler)
            assert told == list(chain(*order(loader)))
        loader.set_epoch(0)
        assert told != list(sampler)
    with validation(noise_folder, rank=rank, world_size=2) as loader:
        assert isinstance(loader.sampler, SequentialSampler)
        assert list(loader.sampler) == list(chain(*order(loader)))


def test_a_data_set_says_what_it_is(noise_folder):
    with training(noise_folder) as loader:
        assert repr(loader.dataset) == f"DatasetView({str(noise_folder)!r}): 37 samples of 3 classes"


def test_looking_at_an_iterator_plays_nothing(noise_folder):
    """Frameworks call `iter` to see whether it works, and `set_epoch` between `iter` and the first batch."""
    with training(noise_folder) as loader:
        epochs = [order(loader) for _ in range(3)]
        loader.set_epoch(0)
        iter(loader)
        assert order(loader) == epochs[0]
        batches = iter(loader)
        loader.set_epoch(2)
        assert [batch.index.tolist() for batch in batches] == epochs[2]
        loader.set_epoch(1)
        batches = iter(loader)
        next(batches)
        state = loader.state_dict()
        loader.load_state_dict(state)
        iter(loader)
        loader.sampler.set_epoch(1)
        assert order(loader) == epochs[1][1:]


def test_targets_go_through_the_mixup_of_others(noise_folder):
    """Soft targets mix like their images: rows of torchvision's and timm's mixtures are those of the two samples."""
    from torchvision.transforms import v2

    with training(noise_folder, targets="soft") as loader:
        batch = next(iter(loader))
    for mix in (v2.MixUp(num_classes=3), v2.CutMix(num_classes=3)):
        images, targets = mix(batch.images.clone(), batch.targets.clone())
        assert images.shape == batch.images.shape
        torch.testing.assert_close(targets.sum(), batch.targets.sum())
    timm = pytest.importorskip("timm.data", reason="timm is not installed; it comes with softfeed[test]")
    mix = timm.Mixup(mixup_alpha=1.0, num_classes=3, label_smoothing=0.0, multi_label=True)
    images, targets = mix(batch.images.clone(), batch.targets.clone())
    other = batch.images.flip(0)
    share = ((images - other) / (batch.images - other)).nanmedian()
    mixed = share * batch.targets + (1 - share) * batch.targets.flip(0)
    torch.testing.assert_close(targets, mixed, rtol=1e-3, atol=1e-3)


def test_accelerate_leaves_the_loader_as_it_is(noise_folder):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed; it comes with softfeed[test]")
    with training(noise_folder) as loader:
        model = nn.Linear(3 * 16 * 16, 3)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        accelerator = accelerate.Accelerator(cpu=True)
        model, optimizer, prepared = accelerator.prepare(model, optimizer, loader)
        assert prepared is loader
        for images, labels, *_ in prepared:
            accelerator.backward(nn.functional.cross_entropy(model(images.flatten(1)), labels))
            optimizer.step()


def lightning_module(lightning):
    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3 * 16 * 16, 3)
            self.trained, self.validated = [], []

        def training_step(self, batch, batch_idx):
            self.trained.append((self.current_epoch, batch.index.tolist()))
            return nn.functional.cross_entropy(self.linear(batch.images.flatten(1)), batch.labels)

        def validation_step(self, batch, batch_idx):
            if not self.trainer.sanity_checking:
                self.validated.append((self.current_epoch, batch.index.tolist()))

        def predict_step(self, batch, batch_idx):
            return batch.index

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    return Module()


@pytest.mark.filterwarnings("ignore")  # Lightning's own
class TestLightning:
    @pytest.fixture
    def lightning(self):
        return pytest.importorskip("lightning", reason="lightning is not installed; it comes with softfeed[test]")

    @pytest.fixture
    def trainer(self, lightning, tmp_path):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        place = {"accelerator": "cpu", "default_root_dir": tmp_path}
        return lambda **options: lightning.Trainer(**{"enable_checkpointing": False} | quiet | place | options)

    @pytest.mark.parametrize(
        "limits", [{}, {"limit_train_batches": 2, "limit_val_batches": 1}], ids=["whole", "limited"]
    )
    def test_no_batch_is_lost(self, noise_folder, lightning, trainer, limits):
        """Each epoch begins with its own first batch, after the sanity check, and after epochs that were cut short."""
        module = lightning_module(lightning)
        with training(noise_folder) as batches, validation(noise_folder) as val:
            trainer(max_epochs=3, **limits).fit(module, batches, val)
            batches.set_epoch(0)
            steps, val_steps = limits.get("limit_train_batches", 4), limits.get("limit_val_batches", 5)
            expected = [(epoch, index) for epoch in range(3) for index in order(batches)[:steps]]
            assert module.trained == expected
            assert module.validated == [(epoch, index) for epoch in range(3) for index in order(val)[:val_steps]]

    def test_prediction_sees_each_sample_once(self, noise_folder, lightning, trainer):
        with validation(noise_folder) as val:
            played = trainer().predict(lightning_module(lightning), val)
        assert torch.cat(played).tolist() == list(range(37))

    def test_overfitting_repeats_the_first_batches(self, noise_folder, lightning, trainer):
        module = lightning_module(lightning)
        with training(noise_folder, shuffle=False) as batches:
            trainer(max_epochs=2, overfit_batches=2).fit(module, batches)
        assert module.trained == [(e, list(range(8 * i, 8 * i + 8))) for e in range(2) for i in range(2)]

    def test_a_checkpoint_in_the_middle_of_an_epoch_goes_on_there(self, noise_folder, lightning, trainer, tmp_path):
        whole = lightning_module(lightning)
        with training(noise_folder) as batches:
            trainer(max_epochs=2).fit(whole, batches)
        first, second = lightning_module(lightning), lightning_module(lightning)

        class Stop(lightning.Callback):
            def on_train_batch_end(self, trainer, module, *_):
                if len(module.trained) == 6:
                    trainer.save_checkpoint(tmp_path / "middle.ckpt")
                    raise KeyboardInterrupt

        with training(noise_folder) as batches, pytest.raises((KeyboardInterrupt, SystemExit)):
            trainer(max_epochs=2, callbacks=[Stop()]).fit(first, batches)
        with training(noise_folder) as batches:
            trainer(max_epochs=2).fit(second, batches, ckpt_path=tmp_path / "middle.ckpt")
        assert len(first.trained) == 6
        assert first.trained + second.trained == whole.trained

    @pytest.mark.slow
    def test_two_processes_share_the_samples(self, noise_folder, lightning, tmp_path):
        """Lightning puts no sampler of its own into the loader: ranks have as many steps, no sample comes twice."""
        script = Path(__file__).with_name("lightning_ranks.py")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        subprocess.run([*torchrun, str(script), str(noise_folder), str(tmp_path)], check=True, timeout=300)
        first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
        for epoch in (0, 1):
            for kind, played in (("train", 32), ("val", 37)):
                by_rank = [[index for e, index in seen[kind] if e == epoch] for seen in (first, second)]
                assert len(by_rank[0]) == len(by_rank[1])
                together = list(chain(*by_rank[0], *by_rank[1]))
                assert len(together) == len(set(together)) == played
        assert first["train"][:4] != first["train"][4:]
