"""timm_style.py with softfeed's loader: decoding and soft crops by DALI, soft targets for timm's mixup and CutMix."""

import argparse

import timm
import torch
from softfeed.pipelines import Loader, presets
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter, accuracy


def load_data(args, device):
    options = {"image_size": args.size, "batch_size": args.batch_size, "device": device, "num_threads": args.workers}
    train_loader = Loader(f"{args.data}/train", presets.by_name("soft-imagenet"), targets="soft", **options)
    val_loader = Loader(f"{args.data}/val", presets.evaluation(), **options)
    num_classes = len(train_loader.dataset.classes)
    return train_loader, val_loader, num_classes


def train_one_epoch(epoch, model, loader, mixup, loss_fn, optimizer, device):
    if hasattr(loader.sampler, "set_epoch"):
        loader.sampler.set_epoch(epoch)
    model.train()
    losses = AverageMeter()
    for images, targets in loader:
        images, targets = mixup(images.to(device), targets.to(device))
        loss = loss_fn(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.update(loss.item(), len(images))
    print(f"epoch {epoch}: loss {losses.avg:.3f} over {losses.count} images")


@torch.inference_mode()
def validate(model, loader, device):
    model.eval()
    top1 = AverageMeter()
    for images, labels, *_ in loader:
        (percent,) = accuracy(model(images.to(device)), labels.to(device))
        top1.update(percent.item(), len(images))
    print(f"top-1 {top1.avg:.1f} % on {top1.count} images")


def main(args):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_loader, val_loader, num_classes = load_data(args, device)
    model = timm.create_model(args.model, num_classes=num_classes).to(device)
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.05)
    scheduler = CosineLRScheduler(optimizer, t_initial=args.epochs)
    mixup = Mixup(mixup_alpha=0.2, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=num_classes, multi_label=True)
    loss_fn = SoftTargetCrossEntropy()
    for epoch in range(args.epochs):
        train_one_epoch(epoch, model, train_loader, mixup, loss_fn, optimizer, device)
        validate(model, val_loader, device)
        scheduler.step(epoch + 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", help="folder with train/ and val/, each class/image.jpg")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    main(parser.parse_args())
