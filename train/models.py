"""Networks by name: torchvision's classifiers, wide ResNets, and a small one for demonstrations."""

from __future__ import annotations

import difflib
import re
from collections import OrderedDict
from types import ModuleType
from typing import Any

import torch
from torch import nn

from .schedule import SMALL_IMAGE
from .wide_resnet import WideResNet, check_wide_resnet


def names() -> tuple[str, ...]:
    """All names `build` knows, sorted; `wrn-28-10` stands for every `wrn-DEPTH-WIDTH`."""
    models = _torchvision_models()
    return tuple(sorted([*models.list_models(module=models), "small-cnn", "wrn-28-10"]))


def _torchvision_models() -> ModuleType:
    """The models of torchvision, imported only for who wants one of them.

    Raises:
        ImportError: if torchvision is missing or does not fit torch.
    """
    advice = "install both from the same index of PyTorch (without a GPU, that of its CPU builds)"
    try:
        from torchvision import models
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise ImportError(f"torchvision must be installed for its models, got none beside torch; {advice}") from error
    # its operators, which it registers with the torch that it finds, or the libraries that both share are missing
    except (RuntimeError, AttributeError, OSError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise ImportError(
            f"torch and torchvision must be of the same build, got torch {torch.__version__} and a torchvision of "
            f"another ({reason}); {advice}"
        ) from error
    return models


def build(name: str, num_classes: int, *, image_size: int) -> nn.Module:
    """A freshly initialised network that turns images [N, 3, S, S] into logits [N, num_classes].

    ResNet-like networks (resnet, resnext, wide_resnet) get the CIFAR stem for images of up to 64 pixels: a 3x3
    first convolution of stride 1 and no max-pooling. Auxiliary heads are left out.

    Args:
        name: one of `names()`.
        num_classes: at least 2.
        image_size: S in pixels, positive.

    Raises:
        ImportError: if it is a model of torchvision, which is missing or of another build than torch.
        ValueError: if the name is unknown (the message lists the closest ones), or if this network does not work
            on images of this size.
    """
    if num_classes < 2:
        raise ValueError(f"num_classes must be at least 2, got {num_classes}")
    if image_size < 1:
        raise ValueError(f"image_size must be positive, got {image_size}")
    _require_known(name)
    try:
        model = _construct(name, num_classes, image_size)
        _pass_shapes(model, image_size)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).strip().split("\n")[0] or "shapes do not fit"
        raise ValueError(f"image_size must suit model {name}, got {image_size} ({reason})") from error
    return model


def _require_known(name: str) -> None:
    wide = re.fullmatch(r"wrn-(\d+)-(\d+)", name)
    if wide:
        check_wide_resnet(depth=int(wide[1]), width=int(wide[2]))
    elif name != "small-cnn" and name not in names():
        close = difflib.get_close_matches(name.lower(), names(), n=3)
        advice = f"did you mean {' or '.join(close)}?" if close else "softfeed.train.models.names() lists them"
        raise ValueError(f"model must be a known name, got {name!r}; {advice}")


def _pass_shapes(model: nn.Module, image_size: int) -> None:
    """One pass without memory or arithmetic, which fails on a size that the network cannot take."""
    training = model.training
    tensors = [*model.named_parameters(), *model.named_buffers()]
    shapes = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors}
    torch.func.functional_call(model.eval(), shapes, torch.empty(1, 3, image_size, image_size, device="meta"))
    model.train(training)


def _construct(name: str, num_classes: int, image_size: int) -> nn.Module:
    if name == "small-cnn":
        return small_cnn(num_classes)
    if name.startswith("wrn-"):
        depth, width = name.split("-")[1:]
        return WideResNet(num_classes, depth=int(depth), width=int(width))
    models = _torchvision_models()
    options: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": True}
    elif name.startswith("vit_"):
        options = {"image_size": image_size}
    elif name.startswith("maxvit_"):
        options = {"input_size": (image_size, image_size)}
    model = models.get_model(name, weights=None, num_classes=num_classes, **options)
    if isinstance(model, models.ResNet) and image_size <= SMALL_IMAGE:
        _use_cifar_stem(model)
    return model


def _use_cifar_stem(model: nn.Module) -> None:
    """Keep small images at full size up to the first block, as SA and the CIFAR literature do."""
    stem: Any = model.conv1
    model.conv1 = nn.Conv2d(3, stem.out_channels, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()


def small_cnn(num_classes: int) -> nn.Sequential:
    """Three convolutions and a linear layer, 94,000 parameters: seconds an epoch on a CPU.

    Takes images [N, 3, S, S] with S >= 4 and gives logits [N, num_classes].
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, (before, after) in enumerate([(3, 32), (32, 64), (64, 128)]):
        layers[f"conv{index}"] = nn.Conv2d(before, after, 3, padding=1, bias=False)
        layers[f"norm{index}"] = nn.BatchNorm2d(after)
        layers[f"relu{index}"] = nn.ReLU()
        layers[f"pool{index}"] = nn.MaxPool2d(2) if index < 2 else nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(128, num_classes)
    return nn.Sequential(layers)
