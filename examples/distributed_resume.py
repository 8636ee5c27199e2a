"""Distributed training that saves every few steps, and goes on in the middle of an epoch when it is started again.

torchrun --nproc-per-node 2 examples/distributed_resume.py photos --output run.pt
"""

import argparse
import os
from pathlib import Path

import torch
from softfeed.pipelines import Loader, presets
from torch import distributed, nn
from torchvision import models


def save(path, model, optimizer, loader):
    """Replace the last checkpoint by a whole one; a stop in between leaves the old one."""
    if distributed.get_rank() == 0:  # the state of a loader is the same on every rank
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "loader": loader.state_dict()}
        torch.save(state, f"{path}.new")
        Path(f"{path}.new").replace(path)


@torch.inference_mode()
def accuracy(model, loader):
    model.eval()
    right = torch.zeros((), device=loader.device)
    for images, labels in loader:
        right += (model(images).argmax(dim=1) == labels).sum()
    model.train()
    distributed.all_reduce(right)
    return right.item() / loader.num_samples


def main(args):
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if cuda else "gloo")  # before the loaders, which ask it for their rank
    torch.manual_seed(0)  # the same model on every rank

    recipe = presets.by_name("soft-imagenet")
    train_loader = Loader(f"{args.data}/train", recipe, args.batch_size, args.size, targets="soft")
    val_loader = Loader(f"{args.data}/val", presets.evaluation(recipe), args.batch_size, args.size, targets="labels")
    model = models.get_model(args.model, num_classes=train_loader.num_targets).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    if args.output.exists():
        state = torch.load(args.output, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        train_loader.load_state_dict(state["loader"])
    parallel = nn.parallel.DistributedDataParallel(model)

    steps = 0
    for epoch in range(train_loader.epoch, args.epochs):
        for images, targets in train_loader:
            loss = nn.functional.cross_entropy(parallel(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            if steps % args.save_every == 0:
                save(args.output, model, optimizer, train_loader)
            if steps == args.stop_after:
                return
        save(args.output, model, optimizer, train_loader)
        score = accuracy(model, val_loader)
        if distributed.get_rank() == 0:
            print(f"epoch {epoch + 1}/{args.epochs}: accuracy {score:.3f} on {val_loader.num_samples} images")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with train/ and val/, each class/image.jpg")
    parser.add_argument("--output", type=Path, default="run.pt", help="the checkpoint, gone on from if it is there")
    parser.add_argument("--save-every", type=int, default=100, help="steps")
    parser.add_argument("--stop-after", type=int, help="steps, to try what a stop does")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=64, help="of each process")
    parser.add_argument("--epochs", type=int, default=90)
    main(parser.parse_args())
    distributed.destroy_process_group()
