"""A classifier as a Lightning module with a data module, with torchvision's own loader.

lightning_module_softfeed.py is the same script with softfeed's loader; `diff` shows what changes.
"""

import argparse

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import datasets, models
from torchvision.transforms import v2


class Images(lightning.LightningDataModule):
    def __init__(self, args):
        super().__init__()
        self.args = args

    def setup(self, stage):
        size, root = self.args.size, self.args.data
        normalize = [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
        self.train = datasets.ImageFolder(
            f"{root}/train", v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *normalize])
        )
        self.val = datasets.ImageFolder(f"{root}/val", v2.Compose([v2.Resize(size), v2.CenterCrop(size), *normalize]))

    def train_dataloader(self):
        return DataLoader(self.train, self.args.batch_size, shuffle=True, drop_last=True, num_workers=self.args.workers)

    def val_dataloader(self):
        return DataLoader(self.val, self.args.batch_size, num_workers=self.args.workers)


class Classifier(lightning.LightningModule):
    def __init__(self, model, num_classes):
        super().__init__()
        self.model = models.get_model(model, num_classes=num_classes)
        self.mix = v2.RandomChoice([v2.MixUp(alpha=0.2, num_classes=num_classes), v2.CutMix(num_classes=num_classes)])

    def training_step(self, batch, batch_idx):
        images, targets = self.mix(*batch)
        loss = nn.functional.cross_entropy(self.model(images), targets)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, batch_idx):
        images, labels, *_ = batch
        right = (self.model(images).argmax(dim=1) == labels).float().mean()
        self.log("val_accuracy", right, prog_bar=True, batch_size=len(images), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)


def main(args):
    classes = datasets.folder.find_classes(f"{args.data}/train")[0]
    trainer = lightning.Trainer(max_epochs=args.epochs, logger=False, enable_checkpointing=False)
    trainer.fit(Classifier(args.model, len(classes)), datamodule=Images(args))
    print({name: round(value.item(), 3) for name, value in trainer.callback_metrics.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder with train/ and val/, each class/image.jpg")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    main(parser.parse_args())
