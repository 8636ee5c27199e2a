"""What a runner tells DALI of the GPU that its batches are for; without a GPU, of calls that are written down."""

import contextlib

import pytest
import torch
from softfeed.pipelines.runner import GraphRunner


class Graph:
    """Stands for a graph; it notes which GPU is current when its output is fetched, and for which stream."""

    def __init__(self, current):
        self.current, self.fetched = current, []

    def feed_input(self, name, data):
        pass

    def schedule_run(self):
        pass

    def outputs(self, cuda_stream=None):
        self.fetched.append((self.current[-1], cuda_stream))
        return [self]

    def as_tensor(self):
        return torch.zeros(1).numpy()


@pytest.fixture
def graph(monkeypatch):
    """A graph in a process with several GPUs, of which cuda:0 is current."""
    current = [torch.device("cuda:0")]

    @contextlib.contextmanager
    def switched(device):
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", switched)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"stream of {device}")
    return Graph(current)


def fetch(graph, device):
    runner = GraphRunner(graph, torch.device(device), 1)
    runner.submit([], {})
    runner.collect()
    return graph.fetched


def test_output_is_fetched_with_the_batches_own_gpu_current(graph):
    """DALI knows the default streams of all GPUs by one handle, which it takes for the current one's."""
    assert fetch(graph, "cuda:1") == [(torch.device("cuda:1"), "stream of cuda:1")]
    assert graph.current == [torch.device("cuda:0")], "another GPU is left current"


def test_on_a_cpu_no_gpu_is_asked_for(graph):
    assert fetch(graph, "cpu") == [(torch.device("cuda:0"), None)]
