"""The fixture `run`: one function of arrays, called with read-only numpy, torch and DALI arrays alike."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from nvidia.dali import fn, pipeline_def

Arrays = tuple[np.ndarray, ...]


def on_numpy(function: Callable[..., Any], arrays: Arrays) -> Any:
    frozen = [array.copy() for array in arrays]
    for array in frozen:
        array.setflags(write=False)  # a write in place raises
    return rebuilt(function(*frozen), np.asarray)


def on_torch(function: Callable[..., Any], arrays: Arrays) -> Any:
    tensors = [torch.tensor(array) for array in arrays]
    result = rebuilt(function(*tensors), lambda tensor: tensor.numpy())
    assert [tensor._version for tensor in tensors] == [0] * len(tensors), "an input was written in place"
    return result


def on_dali(function: Callable[..., Any], arrays: Arrays, device: str) -> Any:
    """A throw-away pipeline with one scalar per sample."""
    shape = arrays[0].shape
    named = {f"input{i}": np.ascontiguousarray(array.reshape(-1)) for i, array in enumerate(arrays)}
    results: list[Any] = []

    @pipeline_def(
        batch_size=arrays[0].size,
        num_threads=1,
        device_id=0 if device == "gpu" else None,
        prefetch_queue_depth=1,
    )
    def pipeline():
        inputs = [fn.external_source(name=name, device=device) for name in named]
        results.append(function(*inputs))
        fields = results[0] if isinstance(results[0], tuple) else (results[0],)
        return *fields, *inputs  # an input that is no output and that nothing uses would be pruned

    built = pipeline()
    built.build()
    for name, array in named.items():
        built.feed_input(name, array)
    outputs = [output.as_cpu().as_array() for output in built.run()]
    fields, inputs = outputs[: -len(arrays)], outputs[-len(arrays) :]
    for array, after in zip(named.values(), inputs, strict=True):
        np.testing.assert_array_equal(after, array, err_msg="an input was written in place")
    fields = [np.array(field).reshape(shape + np.shape(field)[1:]) for field in fields]
    return type(results[0])(*fields) if isinstance(results[0], tuple) else fields[0]


def rebuilt(result: Any, to_numpy: Callable[[Any], np.ndarray]) -> Any:
    if isinstance(result, tuple):
        return type(result)(*[to_numpy(field) for field in result])
    return to_numpy(result)


@pytest.fixture(params=["numpy", "torch", "dali-cpu", pytest.param("dali-gpu", marks=pytest.mark.gpu)])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Call `function(*arrays)` in one array library: numpy arrays in, float32 numpy arrays (or a NamedTuple) out."""

    def call(function: Callable[..., Any], *arrays: np.ndarray) -> Any:
        if request.param.startswith("dali"):
            result = on_dali(function, arrays, request.param.removeprefix("dali-"))
        else:
            result = {"numpy": on_numpy, "torch": on_torch}[request.param](function, arrays)
        for field in result if isinstance(result, tuple) else (result,):
            assert field.dtype == np.float32
            assert field.shape[: arrays[0].ndim] == arrays[0].shape
        return result

    return call
