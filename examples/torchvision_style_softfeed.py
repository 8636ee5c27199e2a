"""torchvision_style.py with softfeed's loader: decoding and soft crops by DALI, soft targets for mixup and CutMix."""

import argparse

import torch
from softfeed.pipelines import Loader, presets
from torch import nn
from torchvision import models
from torchvision.transforms import v2


def load_data(args):
    settings = {"batch_size": args.batch_size, "image_size": args.size, "num_threads": args.workers}
    train_loader = Loader(f"{args.data}/train", presets.by_name("soft-imagenet"), targets="soft", **settings)
    val_loader = Loader(f"{args.data}/val", presets.evaluation(), classes=train_loader.classes, **settings)
    return train_loader, val_loader


def train_one_epoch(model, loader, optimizer, mix, device):
    model.train()
    for step, (images, targets) in enumerate(loader):
        images, targets = mix(images.to(device), targets.to(device))
        loss = nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step + 1}/{len(loader)}: loss {loss.item():.3f}")


@torch.inference_mode()
def evaluate(model, loader, device):
    model.eval()
    right = 0
    for images, labels, *_ in loader:
        right += (model(images.to(device)).argmax(dim=1) == labels.to(device)).sum().item()
    print(f"accuracy {right / len(loader.dataset):.3f} on {len(loader.dataset)} images")


def main(args):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_loader, val_loader = load_data(args)
    num_classes = len(train_loader.dataset.classes)
    model = models.get_model(args.model, num_classes=num_classes).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    mix = v2.RandomChoice([v2.MixUp(alpha=0.2, num_classes=num_classes), v2.CutMix(num_classes=num_classes)])
    for _ in range(args.epochs):
        train_one_epoch(model, train_loader, optimizer, mix, device)
        evaluate(model, val_loader, device)
        scheduler.step()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder with train/ and val/, each class/image.jpg")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    main(parser.parse_args())
