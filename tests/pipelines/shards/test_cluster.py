import os
import subprocess
import sys

import pytest
from softfeed.pipelines.shards.cluster import dask_cluster
from softfeed.pipelines.shards.convert import convert
from softfeed.pipelines.shards.layout import ShardOptions

distributed = pytest.importorskip("distributed", reason="needs the package distributed, softfeed[dask]")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A cluster of two worker processes on this machine."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        dashboard_address=None,
        local_directory=str(tmp_path_factory.mktemp("dask")),
    ) as cluster:
        yield cluster.scheduler_address


def test_a_cluster_writes_the_same_bytes(tmp_path, address, image_folder, content):
    source = image_folder(classes=3, each=10)
    (source / "class1" / "002.png").write_bytes(b"hello, world")
    options = ShardOptions(shard_samples=3)
    convert(source, tmp_path / "one", options, workers=1)
    with dask_cluster(address) as (executor, workers):
        assert workers == 2
        assert executor.submit(os.getpid).result(timeout=60) != os.getpid()
        outcome = convert(source, tmp_path / "two", options, executor=executor, workers=workers)
    assert len(outcome.bad) == 1
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_the_command_takes_a_cluster(tmp_path, address, parquet_file, encoded, content):
    path = parquet_file(images=[encoded(seed) for seed in range(20)], labels=[0] * 20)
    convert(path, tmp_path / "one", ShardOptions(shard_samples=3), workers=1)
    command = [sys.executable, "-m", "softfeed.train.cli", "convert", path, "two", "--shard-size=3", "--dask", address]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    assert content(tmp_path / "two") == content(tmp_path / "one")


def test_no_scheduler_is_an_error():
    with pytest.raises(ConnectionError, match=r"--dask must be the address of a scheduler, got tcp://127.0.0.1:1 "):
        with dask_cluster("tcp://127.0.0.1:1", timeout_s=0.5):
            pass
