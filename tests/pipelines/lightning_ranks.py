"""Run by torchrun: trains with Lightning on two processes and writes what each rank saw; see test_frameworks.py."""

import json
import sys
from pathlib import Path

import lightning
import torch
from softfeed.pipelines import Loader, Recipe, SoftCrop, presets
from torch import nn


class Module(lightning.LightningModule):
    def __init__(self, data):
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 3)
        self.data, self.seen = data, {"train": [], "val": []}

    def training_step(self, batch, batch_idx):
        self.seen["train"].append([self.current_epoch, batch.index.tolist()])
        return nn.functional.cross_entropy(self.linear(batch.images.flatten(1)), batch.labels)

    def validation_step(self, batch, batch_idx):
        if not self.trainer.sanity_checking:
            self.seen["val"].append([self.current_epoch, batch.index.tolist()])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def train_dataloader(self):
        return Loader(self.data, Recipe(crop=SoftCrop()), 4, 16, device="cpu", index=True)

    def val_dataloader(self):
        return Loader(self.data, presets.evaluation(), 4, 16, device="cpu", index=True)


def main(data, output):
    module = Module(data)
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module)
    Path(output, f"{trainer.global_rank}.json").write_text(json.dumps(module.seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
