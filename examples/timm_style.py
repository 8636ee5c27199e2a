"""A classifier trained as timm's train.py does, with timm's own loader and its mixup and CutMix.

timm_style_softfeed.py is the same script with softfeed's loader; `diff` shows what changes.
"""

import argparse

import timm
import torch
from timm.data import Mixup, create_dataset, create_loader
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter, accuracy


def load_data(args, device):
    options = {
        "input_size": (3, args.size, args.size),
        "batch_size": args.batch_size,
        "device": device,
        "num_workers": args.workers,
    }
    train = create_dataset("", f"{args.data}/train")
    val = create_dataset("", f"{args.data}/val")
    train_loader = create_loader(train, is_training=True, use_prefetcher=False, color_jitter=None, **options)
    val_loader = create_loader(val, use_prefetcher=False, crop_pct=1.0, **options)
    num_classes = len(train.reader.class_to_idx)
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
    mixup = Mixup(mixup_alpha=0.2, cutmix_alpha=1.0, label_smoothing=0.0, num_classes=num_classes)
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
