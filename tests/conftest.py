"""What all test folders share: tests marked `gpu` skip, and say why, where there is no NVIDIA GPU."""

import os
import signal
import warnings
from collections.abc import Iterator

import pytest

try:
    from hypothesis import HealthCheck, settings
except ImportError:  # tests that need it skip, and say so
    pass
else:
    # `pytest --hypothesis-profile random` looks for examples that no run has tried; what it finds is for `@example`.
    # Examples have no deadline, as others may use the machine.
    untimed = settings(deadline=None, print_blob=True, database=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("random", untimed)
    settings.register_profile("repeatable", untimed, derandomize=True)
    settings.load_profile("repeatable")

# What only a GPU can get wrong: with `-m gpu` these files come first, as time on one may be short. The many small tests
# of the mathematics come last.
FIRST = ("test_gpu.py", "test_gpu_decoder.py", "test_roi_probe.py", "test_decoder.py")
LAST = "softops"


def pytest_configure(config: pytest.Config) -> None:
    # A shell has what it runs in the background ignore Ctrl-C, and what that starts, too, which tests send Ctrl-C to.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if config.option.markexpr == "gpu":
        items.sort(key=_turn)
    reason = _why_no_gpu() if marked else None
    if reason is not None:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="module")
def environment() -> Iterator[None]:
    """Libraries leave variables behind, such as Dask OMP_NUM_THREADS, by which later tests train otherwise."""
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys() - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name != "PYTEST_CURRENT_TEST"})


def _turn(item: pytest.Item) -> int:
    name = item.path.name
    return FIRST.index(name) if name in FIRST else len(FIRST) + (item.path.parent.name == LAST)


def _why_no_gpu() -> str | None:
    import torch

    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA, so no NVIDIA GPU can be used"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a driver that is missing or too old warns; the skip says enough
        return None if torch.cuda.is_available() else "torch sees no NVIDIA GPU on this machine"
