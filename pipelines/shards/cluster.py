"""A Dask cluster as the place where a conversion does its work."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager


@contextmanager
def dask_cluster(address: str, *, timeout_s: float = 30) -> Iterator[tuple[Executor, int]]:
    """The workers of a running Dask cluster, for `convert(..., executor=..., workers=...)`.

    Every worker must have softfeed installed, and see the source and the destination under the same paths. Decoding
    in the threads of one process takes turns, so give the cluster processes of one thread each.

    Args:
        address: of the scheduler, "tcp://host:8786".
        timeout_s: to wait for the scheduler.

    Yields:
        the executor, and how many jobs the cluster does at once.

    Raises:
        ModuleNotFoundError: if the package `distributed` is not installed.
        ConnectionError: if no scheduler answers, or it has no workers.
    """
    try:
        from distributed import Client
    except ModuleNotFoundError as error:
        if error.name != "distributed":
            raise
        raise ModuleNotFoundError(
            "--dask must find the package distributed, got none; pip install 'softfeed[dask]'", name="distributed"
        ) from None
    try:
        client = Client(address, timeout=timeout_s, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConnectionError(f"--dask must be the address of a scheduler, got {address} ({error})") from None
    with client:
        threads = sum(dict(client.ncores()).values())  # pyright: ignore[reportArgumentType, reportCallIssue]
        if not threads:
            raise ConnectionError(f"--dask must be a scheduler with workers, got none at {address}; start dask worker")
        yield client.get_executor(), threads
