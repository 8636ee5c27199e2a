import re
import sys

import pytest
import torch
import torchvision
from softfeed.train import cli, models


def parameters(model):
    return sum(p.numel() for p in model.parameters())


# Millions of parameters from tables 4 and 5 of arXiv 1605.07146 (CIFAR-10).
@pytest.mark.parametrize(("name", "millions"), [("wrn-16-8", 11.0), ("wrn-28-10", 36.5), ("wrn-40-4", 8.9)])
def test_wide_resnets_have_the_published_size(name, millions):
    assert round(parameters(models.build(name, 10, image_size=32)) / 1e6, 1) == millions


def test_wide_resnet_is_the_papers_network_block_by_block():
    """Against the same network written out: torch.nn.functional calls in the paper's order, on the same weights."""
    model = models.build("wrn-10-2", 5, image_size=16).eval()
    weights = dict(model.state_dict())

    def norm_relu(x, name):
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        x = torch.nn.functional.batch_norm(x, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"])
        return x.clamp(min=0)

    conv = torch.nn.functional.conv2d
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    x = conv(images, weights["stem.weight"], padding=1)
    for block, stride in enumerate((1, 2, 2)):
        active = norm_relu(x, f"blocks.{block}.norm1")
        y = conv(active, weights[f"blocks.{block}.conv1.weight"], stride=stride, padding=1)
        y = conv(norm_relu(y, f"blocks.{block}.norm2"), weights[f"blocks.{block}.conv2.weight"], padding=1)
        x = y + conv(active, weights[f"blocks.{block}.shortcut.weight"], stride=stride)
        assert x.shape == (2, 32 << block, 16 >> block, 16 >> block)
    x = norm_relu(x, "norm").mean(dim=(2, 3))
    torch.testing.assert_close(model(images), x @ weights["head.weight"].T + weights["head.bias"])


@pytest.mark.parametrize(("name", "size"), [("small-cnn", 8), ("wrn-10-1", 32), ("resnet18", 32)])
def test_models_train_from_images_to_logits(name, size):
    model = models.build(name, 7, image_size=size)
    assert model.training
    logits = model(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 7)
    logits.sum().backward()


def test_auxiliary_heads_are_left_out():
    with torch.device("meta"):  # shapes only: these two take seconds to initialise
        for name in ("googlenet", "inception_v3"):
            logits = models.build(name, 7, image_size=224)(torch.zeros(2, 3, 224, 224))
            assert isinstance(logits, torch.Tensor)  # and not a tuple
            assert logits.shape == (2, 7)


def test_every_torchvision_classifier_has_its_name():
    assert set(torchvision.models.list_models(module=torchvision.models)) < set(models.names())


@pytest.fixture(params=["other build", "other library", "missing"])
def without_torchvision(request, tmp_path, monkeypatch):
    """Has Python find a torchvision that does not fit, as one of another build says it, or none; what is wrong."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    if request.param == "missing":
        monkeypatch.setitem(sys.modules, "torchvision", None)
        return "torchvision must be installed for its models, got none beside torch; install both from the same index"
    reason = "operator torchvision::nms does not exist"
    said = f"raise RuntimeError('{reason}')"
    if request.param == "other library":
        reason = "libcudart.so.13: cannot open shared object file"
        said = f"raise OSError('{reason}')"
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(said)
    monkeypatch.syspath_prepend(tmp_path)
    got = f"torch {torch.__version__} and a torchvision of another ({reason})"
    return re.escape(f"torch and torchvision must be of the same build, got {got}; install both from the same index")


def test_only_models_of_torchvision_need_it(without_torchvision, capsys, monkeypatch):
    for name in ("small-cnn", "wrn-10-1"):
        assert models.build(name, 3, image_size=32)
    for _ in range(2):  # the second import may fail in another way
        with pytest.raises(ImportError, match=without_torchvision) as caught:
            models.build("resnet18", 3, image_size=32)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr("softfeed.train.cli._run", lambda argv: models.build("resnet18", 3, image_size=32))
    assert cli.main([]) == 2
    assert capsys.readouterr().err == f"softfeed: error: {caught.value}\n"


def test_image_size_reaches_the_models_that_are_built_for_one():
    model = models.build("vit_b_32", 3, image_size=64)
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "wide_resnet50_2"])
def test_small_images_get_the_cifar_stem_and_large_ones_do_not(name):
    sizes = {}
    with torch.device("meta"):
        for image_size in (32, 64, 65, 224):
            model = models.build(name, 10, image_size=image_size)
            model.layer1.register_forward_pre_hook(lambda _, x, key=image_size: sizes.update({key: x[0].shape[-1]}))
            model.eval()(torch.zeros(1, 3, image_size, image_size))
    assert sizes == {32: 32, 64: 64, 65: 17, 224: 56}


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("resnet81", 32, "model must be a known name, got 'resnet81'; did you mean resnet18"),
        ("xyzzy", 32, "got 'xyzzy'; softfeed.train.models.names"),
        ("wrn-27-10", 32, "depth must be 6 n .* got 27"),
        ("wrn-28-0", 32, "width must be at least 1, got 0"),
        ("alexnet", 32, "image_size must suit model alexnet, got 32 "),
        ("vit_b_16", 40, "image_size must suit model vit_b_16, got 40 "),
        ("maxvit_t", 32, "image_size must suit model maxvit_t, got 32 "),
        ("resnet18", 0, "image_size must be positive, got 0"),
    ],
)
def test_what_cannot_be_built_is_one_line(name, size, message):
    with pytest.raises(ValueError, match=message) as caught:
        models.build(name, 10, image_size=size)
    assert "\n" not in str(caught.value)


def test_one_class_is_not_a_classification():
    with pytest.raises(ValueError, match="num_classes must be at least 2, got 1"):
        models.build("small-cnn", 1, image_size=32)
