"""What frameworks look for on a loader, with the frameworks themselves where they are installed."""

import json
import pickle
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from softfeed.pipelines import Loader, ReadError, Recipe, SoftCrop, SoftShift, UnreadableImageError, presets
from torch import nn
from torch.utils.data import DataLoader, SequentialSampler

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


def test_a_sample_is_its_whole_image_and_its_label(noise_set, noise_folder):
    from torchvision.datasets import ImageFolder

    files = ImageFolder(str(noise_folder))
    names = [path.removeprefix(f"{noise_folder}/") for path, _ in files.samples]
    expected = dict(zip(names, files, strict=True))
    with validation(noise_set) as loader:
        samples = list(loader.dataset)  # which ends, as an index beyond the end is refused
        assert len(samples) == len(loader.dataset)
        assert [label for _, label in samples] == loader.dataset.targets
        for index, (image, label) in enumerate(samples):
            (name,) = (name for name in expected if name in loader.source(index))
            assert (image.mode, type(label)) == ("RGB", int)
            np.testing.assert_array_equal(image, expected[name][0])
            assert label == expected[name][1]
        kinds = [np.int64(5), torch.tensor(5), torch.tensor([5]), 5 - 37]
        assert all(loader.dataset[kind] == samples[5] for kind in kinds)
    assert loader.dataset[3] == samples[3], "a closed loader has its data set no more"


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (37, IndexError, "index must be of a sample, from -37 to 36, got 37"),
        (-38, IndexError, "index must be of a sample, from -37 to 36, got -38"),
        (1.0, TypeError, "index must be one whole number, got 1.0"),
        (torch.tensor(1.0), TypeError, r"index must be one whole number, got tensor\(1.\)"),
        (torch.tensor([1, 2]), TypeError, r"index must be one whole number, got tensor\(\[1, 2\]\)"),
        (np.arange(2), TypeError, r"index must be one whole number, got array\(\[0, 1\]\)"),
        (slice(3), TypeError, "index must be one whole number, got slice"),
        ("1", TypeError, "index must be one whole number, got '1'"),
    ],
)
def test_what_is_no_sample_is_said(noise_folder, index, error, message):
    with validation(noise_folder) as loader:
        with pytest.raises(error, match=message):
            loader.dataset[index]
        with pytest.raises(error, match=message.replace("-37", "0")):
            loader.source(index)
        assert loader.source(torch.tensor(1)) == loader.source(np.uint8(1)) == loader.source(1)


def test_a_sample_is_turned_and_in_rgb_as_the_loader_has_it(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned right
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    Image.fromarray(pixels[..., 0]).save(tmp_path / "a/gray.png")
    Image.fromarray(pixels).save(tmp_path / "b/turned.png", exif=turned)
    (tmp_path / "b/broken.jpg").write_bytes(b"no image")
    with validation(tmp_path) as loader:
        (gray, _), (turned, label) = loader.dataset[0], loader.dataset[2]
        np.testing.assert_array_equal(gray, np.repeat(pixels[..., :1], 3, axis=2))
        np.testing.assert_array_equal(turned, np.rot90(pixels, -1))
        assert label == 1
        with pytest.raises(UnreadableImageError, match=r"cannot decode .*b/broken\.jpg: not an image"):
            loader.dataset[1]
        (tmp_path / "b/broken.jpg").unlink()
        with pytest.raises(ReadError, match=r"cannot read .*b/broken\.jpg: No such file"):
            loader.dataset[1]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_data_loader_takes_the_data_set(noise_sets, num_workers):
    """As for statistics of the images, or a comparison; in processes forked from one that has decoded already."""
    from torchvision.transforms.v2.functional import pil_to_tensor

    for kind in ("encoded", "raw"):
        with validation(noise_sets[kind]) as loader:
            first, _ = loader.dataset[0]
            options = {"num_workers": num_workers, "collate_fn": list}
            samples = [sample for batch in DataLoader(loader.dataset, 10, **options) for sample in batch]
            assert [label for _, label in samples] == loader.dataset.targets
            assert torch.equal(pil_to_tensor(samples[0][0]), pil_to_tensor(first))
            copied = pickle.loads(pickle.dumps(loader.dataset))
            assert copied[0] == loader.dataset[0]


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


def test_a_loader_in_a_data_loader_says_what_to_do_instead(noise_sets, make_loader):
    loader = make_loader(noise_sets["raw"], Recipe(crop=SoftShift()))
    with pytest.raises(TypeError, match=r"a Loader gives whole batches, .* without a DataLoader around it"):
        next(iter(DataLoader(loader, batch_size=None)))
